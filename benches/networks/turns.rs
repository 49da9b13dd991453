//! Measures taken when somebody else says so, who times other engines between.

use std::io::Write;
use std::time::Instant;

use super::Measure;

/// Calls in a turn: those of the second half count, and an edit takes dozens one after the other.
const LEAST: usize = 3;

/// Says the CPU path `path`, then answers each line of standard input, a measure's name, with the seconds
/// of its calls in a turn: as many as half a second holds, at least [`LEAST`]. Everything as JSON, a line each.
pub fn take(mut measures: Vec<Measure>, path: &str) {
    say(&path.into());
    for line in std::io::stdin().lines() {
        let wanted = line.unwrap();
        let known = measures.iter_mut().find(|(name, _)| *name == wanted);
        let Some((_, f)) = known else {
            return eprintln!("no measure {wanted:?}");
        };
        let (begin, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < LEAST || begin.elapsed().as_secs_f64() < 0.5 {
            let start = Instant::now();
            f();
            seconds.push(start.elapsed().as_secs_f64());
        }
        say(&seconds.into());
    }
}

fn say(what: &serde_json::Value) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

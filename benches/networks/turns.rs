//! Measures taken when somebody else says so, who times other engines between.

use std::io::Write;
use std::time::Instant;

use super::Measure;

/// Answers each line of standard input, a measure's name, with the seconds of its calls in a turn: one, or
/// as many as half a second holds; as JSON in a line.
pub fn take(mut measures: Vec<Measure>) {
    for line in std::io::stdin().lines() {
        let wanted = line.unwrap();
        let known = measures.iter_mut().find(|(name, _)| *name == wanted);
        let Some((_, f)) = known else {
            return eprintln!("no measure {wanted:?}");
        };
        let (begin, mut seconds) = (Instant::now(), Vec::new());
        while seconds.is_empty() || begin.elapsed().as_secs_f64() < 0.5 {
            let start = Instant::now();
            f();
            seconds.push(start.elapsed().as_secs_f64());
        }
        println!("{}", serde_json::json!(seconds));
        std::io::stdout().flush().unwrap();
    }
}

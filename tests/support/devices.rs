//! Where candle's operations can be tried.

use semblance::nn::candle::OnDevice;

/// The CPU, and the cards that this build serves and this machine has.
pub fn devices() -> Vec<OnDevice> {
    #[allow(unused_mut)]
    let mut all = vec![OnDevice::cpu()];
    #[cfg(feature = "cuda")]
    match OnDevice::cuda(0) {
        Ok(card) => all.push(card),
        Err(e) => println!("skipped: no CUDA device ({e})"),
    }
    #[cfg(feature = "metal")]
    match OnDevice::metal(0) {
        Ok(card) => all.push(card),
        Err(e) => println!("skipped: no Metal device ({e})"),
    }
    all
}

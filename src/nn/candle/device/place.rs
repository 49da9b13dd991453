//! Devices by name, and which of them this build serves.

use std::fmt;
#[cfg(any(test, feature = "cuda", feature = "metal"))]
use std::sync::{Arc, Weak};

#[cfg(any(test, feature = "cuda", feature = "metal"))]
use candle_core::Device;
#[cfg(any(test, feature = "cuda", feature = "metal"))]
use parking_lot::Mutex;

use super::OnDevice;
use crate::error::{Code, Error, Result};

/// The environment variable that asks for a device: a name of [`Place`].
pub const VARIABLE: &str = "SEMBLANCE_DEVICE";

/// A device: `cpu`, `cuda` (the first card), `cuda:1`, `metal`, `metal:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    Cpu,
    /// A card of NVIDIA's, by its number.
    Cuda(usize),
    /// A GPU of Apple's, by its number.
    Metal(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Cuda(i) => write!(f, "cuda:{i}"),
            Place::Metal(i) => write!(f, "metal:{i}"),
        }
    }
}

impl Place {
    /// The device that the environment asks for, if it asks.
    ///
    /// Errors as [`Place::named`].
    pub fn chosen() -> Result<Option<Place>> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Place::named(&name.to_string_lossy()).map(Some),
            _ => Ok(None),
        }
    }

    /// The device of this name.
    ///
    /// Errors with [`Code::InvalidParameter`] where it is none.
    pub fn named(name: &str) -> Result<Place> {
        let name = name.trim();
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, number.parse().ok()),
            None => (name, Some(0)),
        };
        match (kind, number) {
            ("cpu", Some(0)) => Ok(Place::Cpu),
            ("cuda", Some(i)) => Ok(Place::Cuda(i)),
            ("metal", Some(i)) => Ok(Place::Metal(i)),
            _ => {
                let name = crate::fields::shorten(name);
                let what =
                    format!("{VARIABLE} = {name}: must be cpu, cuda, cuda:N, metal or metal:N");
                Err(refused(what).with_hint("unset it for the CPU"))
            }
        }
    }

    /// That this build cannot compute there, and what does.
    pub(crate) fn unserved(self) -> Error {
        let feature = match self {
            Place::Metal(_) => "metal",
            _ => "cuda",
        };
        refused(format!(
            "{VARIABLE} = {self}: this build serves {}",
            Place::served()
        ))
        .with_hint(format!(
            "build it with `--features {feature}`, or unset the variable for the CPU"
        ))
    }

    fn served() -> &'static str {
        match (cfg!(feature = "cuda"), cfg!(feature = "metal")) {
            (false, false) => "cpu",
            (true, false) => "cpu, cuda, cuda:N",
            (false, true) => "cpu, metal, metal:N",
            (true, true) => "cpu, cuda, cuda:N, metal, metal:N",
        }
    }
}

fn refused(what: String) -> Error {
    Error::new(Code::InvalidParameter, what).with_parameter(VARIABLE)
}

impl OnDevice {
    /// candle's operations on the device at `place`; those who ask for the same one share it.
    ///
    /// Errors with [`Code::InvalidParameter`] when this build does not serve it, or there is none.
    pub fn at(place: Place) -> Result<Self> {
        match place {
            Place::Cpu => Ok(OnDevice::cpu()),
            #[cfg(feature = "cuda")]
            Place::Cuda(ordinal) => OnDevice::cuda(ordinal),
            #[cfg(feature = "metal")]
            Place::Metal(ordinal) => OnDevice::metal(ordinal),
            #[cfg(not(all(feature = "cuda", feature = "metal")))]
            _ => Err(place.unserved()),
        }
    }

    /// candle's operations on a card of NVIDIA's; those who ask for the same one share it.
    ///
    /// Errors with [`Code::InvalidParameter`] when there is none of this number.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Self> {
        // One stream for all threads: what one has written the next may read.
        shared(&OPEN, Place::Cuda(ordinal), || {
            Device::new_cuda_with_stream(ordinal)
        })
    }

    /// candle's operations on a GPU of Apple's; those who ask for the same one share it.
    ///
    /// Errors with [`Code::InvalidParameter`] when there is none of this number.
    #[cfg(feature = "metal")]
    pub fn metal(ordinal: usize) -> Result<Self> {
        shared(&OPEN, Place::Metal(ordinal), || Device::new_metal(ordinal))
    }
}

/// Devices that somebody holds. candle lets no values of two openings of one device meet, and models are
/// shared between those who name the same backend.
#[cfg(any(test, feature = "cuda", feature = "metal"))]
type Open = Mutex<Vec<(Place, Weak<Device>)>>;

#[cfg(any(feature = "cuda", feature = "metal"))]
static OPEN: Open = Mutex::new(Vec::new());

/// The device at `place`: the one that somebody holds, or a new one.
#[cfg(any(test, feature = "cuda", feature = "metal"))]
fn shared(
    open: &Open,
    place: Place,
    make: impl FnOnce() -> candle_core::Result<Device>,
) -> Result<OnDevice> {
    let mut open = open.lock();
    open.retain(|(_, device)| device.strong_count() > 0);
    let held = open.iter().find(|(held, _)| *held == place);
    if let Some(device) = held.and_then(|(_, device)| device.upgrade()) {
        return Ok(OnDevice { device });
    }
    let device = make().map_err(|e| {
        let what = format!("{VARIABLE} = {place}: no such device here");
        refused(format!("{what} ({})", crate::nn::candle::said(&e)))
            .with_hint("its driver must be there; cpu is served everywhere")
    })?;
    let device = Arc::new(device);
    open.push((place, Arc::downgrade(&device)));
    Ok(OnDevice { device })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_device_is_named_by_its_kind_and_number() {
        for (name, place) in [
            ("cpu", Place::Cpu),
            ("cuda", Place::Cuda(0)),
            (" cuda:2 ", Place::Cuda(2)),
            ("metal", Place::Metal(0)),
            ("metal:1", Place::Metal(1)),
        ] {
            assert_eq!(Place::named(name), Ok(place));
            assert_eq!(Place::named(&place.to_string()), Ok(place));
        }
        for name in [
            "", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cpu:1", "cuda:0:0",
        ] {
            let error = Place::named(name).unwrap_err();
            assert_eq!(error.code(), Code::InvalidParameter);
            assert!(error.to_string().contains("must be cpu, cuda"), "{error}");
        }
    }

    #[test]
    fn a_device_that_this_build_does_not_serve_is_refused_with_how_to_build_it() {
        for (place, served) in [
            (Place::Cuda(0), cfg!(feature = "cuda")),
            (Place::Metal(3), cfg!(feature = "metal")),
        ] {
            if served {
                continue;
            }
            let error = OnDevice::at(place).unwrap_err();
            let (kind, _) = place
                .to_string()
                .split_once(':')
                .map(|(k, n)| (k.to_owned(), n.to_owned()))
                .unwrap();
            assert_eq!(error.code(), Code::InvalidParameter);
            assert!(
                error.to_string().contains("this build serves cpu"),
                "{error}"
            );
            assert!(
                error.hint().contains(&format!("--features {kind}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_device_is_opened_once_while_somebody_holds_it_and_again_after() {
        let open = Open::default();
        let opened = std::cell::Cell::new(0);
        let ask = |place| {
            shared(&open, place, || {
                opened.set(opened.get() + 1);
                Ok(Device::Cpu)
            })
            .unwrap()
        };
        let (first, second) = (ask(Place::Cuda(0)), ask(Place::Cuda(0)));
        assert!(Arc::ptr_eq(&first.device, &second.device));
        let other = ask(Place::Cuda(1));
        assert!(!Arc::ptr_eq(&first.device, &other.device));
        assert_eq!(opened.get(), 2);
        drop((first, second));
        ask(Place::Cuda(0));
        assert_eq!(opened.get(), 3);
        let none = shared(&open, Place::Metal(0), || {
            candle_core::bail!("nothing there")
        });
        let error = none.unwrap_err();
        assert_eq!(error.code(), Code::InvalidParameter);
        assert!(error.to_string().contains("metal:0"), "{error}");
    }
}

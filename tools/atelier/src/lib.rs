//! Renders landscapes with exact, continuous attributes: the training pictures of the embedded model, the ground truth
//! of the benchmark and the example pictures all come from here.
//!
//! A [`Scene`] is drawn from a seed; [`Attributes`] set its weather, light and season. The same scene under other
//! attributes is the true counterfactual, and at another size it shows the same content with more or less detail.
//! Not a general renderer: seven kinds of place, one sun, no animals.
//!
//! ```
//! use semblance_atelier::{Attribute, Attributes, Place, Scene, render};
//! let scene = Scene::new(7, Place::MountainLake);
//! let picture = render(&scene, &Attributes::only(Attribute::Sunset, 0.8), 96, 64);
//! assert_eq!(picture.to_u8().len(), 96 * 64 * 3);
//! ```
#![forbid(unsafe_code)]

mod attributes;
pub mod caption;
mod draw;
mod frame;
mod light;
mod maths;
mod noise;
mod photo;
mod plants;
mod render;
mod scene;
mod shade;
mod shapes;
pub mod stream;
mod terrain;

pub use attributes::{Attribute, Attributes};
pub(crate) use draw::Draw;
pub use frame::Frame;
pub use render::{Picture, mask, render};
pub use scene::{Place, Scene};

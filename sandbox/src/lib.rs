//! Room for processes that are not trusted, made without a daemon and without root.
//!
//! 1. [`room::enter`] puts this process into namespaces of its own: mounts and processes, and as an ordinary user a user
//!    namespace too. Whatever is mounted or started from then on ends with the process, however it ends.
//! 2. [`session::Session`] is a folder for one command: what it leaves when it is killed, the next one removes.
//! 3. [`roots`] has the files of an image unpacked, once for all commands; [`tree`] puts a layer on them that takes what is written.
//! 4. [`bundle`] writes `config.json` of an OCI runtime bundle, [`runtime`] has an installed runtime run it.
//! 5. [`network`] lets sandboxes out, but not to what this machine has for itself.
//!
//! Nothing here knows what an image or a buildpack is: who calls it unpacks, and says what is run.

pub mod bundle;
pub mod copy;
mod ending;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod network;
pub mod room;
pub mod roots;
pub mod runtime;
mod seccomp;
pub mod session;
pub mod signals;
pub mod tree;
mod wait;

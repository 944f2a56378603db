//! The cases, a module a group. A case's function says in its doc comment which clause it checks.

use crate::case::Case;

mod identity;

mod create;

mod seal;

mod mount;

mod remove;

/// Every case, in the order in which the groups build on each other.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    let groups = [identity::CASES, create::CASES, seal::CASES, mount::CASES, remove::CASES];
    groups.into_iter().flatten()
}

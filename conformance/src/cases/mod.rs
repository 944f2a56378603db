//! The cases, a module a group. A case's function says in its doc comment which clause it checks.

use crate::case::Case;

mod identity;

mod create;

mod seal;

mod mount;

mod remove;

mod diff;

mod apply;

mod metadata;

mod hostile;

mod depth;

mod concurrency;

mod crash;

mod space;

mod quota;

mod foreign;

mod capabilities;

mod status;

mod regressions;

/// Every case, in the order in which the groups build on each other.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    let groups = [
        identity::CASES,
        create::CASES,
        seal::CASES,
        mount::CASES,
        remove::CASES,
        diff::CASES,
        apply::CASES,
        metadata::CASES,
        hostile::CASES,
        depth::CASES,
        concurrency::CASES,
        crash::CASES,
        space::CASES,
        quota::CASES,
        foreign::CASES,
        capabilities::CASES,
        status::CASES,
        regressions::CASES,
    ];
    groups.into_iter().flatten()
}

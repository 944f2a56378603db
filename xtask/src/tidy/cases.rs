//! The conformance suite's cases.

use super::Finding;
use super::tree::{Tree, lines};

/// Every case says in a doc comment which clause of the contract it checks: a failure reads as that sentence.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let groups = tree
        .rust()
        .filter(|(path, _)| path.starts_with("conformance/src/cases/") && !path.ends_with("/mod.rs"));
    groups.flat_map(|(path, text)| group(path, text)).collect()
}

fn group(path: &str, text: &str) -> Vec<Finding> {
    let Some((_, after)) = text.split_once("cases!(") else {
        return vec![Finding::new(path, 0, "lists no cases: list its functions in cases!(…)")];
    };
    let list = after.split(");").next().unwrap_or_default();
    let names =
        list.lines().skip(1).map(|line| line.trim().trim_end_matches(',')).filter(|line| is_name(line));
    names.filter_map(|name| undocumented(path, text, name)).collect()
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn undocumented(path: &str, text: &str, name: &str) -> Option<Finding> {
    let mut before = "";
    for (number, line) in lines(text) {
        if line.contains(&format!("fn {name}(")) {
            let message = format!("the case {name} has no doc comment: cite the clause that it checks");
            return (!before.trim_start().starts_with("///")).then(|| Finding::new(path, number, message));
        }
        // Attributes stand between the comment and the function.
        if !line.trim_start().starts_with("#[") {
            before = line;
        }
    }
    Some(Finding::new(path, 0, format!("the case {name} is listed, and there is no such function")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "cases!(\"seal.rs\":\n    a,\n    b,\n);\n";

    fn found(functions: &str) -> Vec<String> {
        let text = format!("{LIST}{functions}");
        let tree = Tree::of(&[("conformance/src/cases/seal.rs", &text)]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_case_cites_its_clause() {
        assert_eq!(found("/// A.\nfn a() {}\n/// B.\n#[x]\nfn b() {}\n"), Vec::<String>::new());
        let messages = found("/// A.\nfn a() {}\n\nfn b() {}\n");
        assert_eq!(
            messages,
            [
                "conformance/src/cases/seal.rs:8: the case b has no doc comment: cite the clause that it checks"
            ]
        );
        assert_eq!(found("/// A.\nfn a() {}\n").len(), 1);
    }

    #[test]
    fn a_group_has_cases() {
        assert_eq!(check(&Tree::of(&[("conformance/src/cases/seal.rs", "//! x\n")])).len(), 1);
        assert_eq!(check(&Tree::of(&[("conformance/src/cases/mod.rs", "//! x\n")])).len(), 0);
    }
}

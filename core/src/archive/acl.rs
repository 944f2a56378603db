//! POSIX ACLs: from the text that star and GNU tar put into an archive to the kernel's binary form.
//!
//! acl(5), "ACL text forms"; include/uapi/linux/posix_acl_xattr.h.

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;

/// `ACL_UNDEFINED_ID`.
const NO_ID: u32 = u32::MAX;

/// The value of `system.posix_acl_access` or `…_default` for an ACL's text (`user::rwx,user:1000:r--,…`), or what
/// is wrong with the text. Users and groups must be numbers, alone or as star's fourth field: which number a name
/// stands for is known only to the system that the archive comes from, except for `root`.
pub(super) fn from_text(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut entries = text
        .split(|byte| matches!(byte, b',' | b'\n'))
        .map(|entry| entry.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii())
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            parse(entry)
                .ok_or_else(|| format!("the ACL entry \"{}\" is not understood", entry.escape_ascii()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable();
    let mut binary = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        binary.extend_from_slice(&tag.to_le_bytes());
        binary.extend_from_slice(&permissions.to_le_bytes());
        binary.extend_from_slice(&id.to_le_bytes());
    }
    Ok(binary)
}

/// Tag, id, permissions. The kernel wants entries in the order of their tags.
fn parse(entry: &[u8]) -> Option<(u16, u32, u16)> {
    let mut fields: Vec<&[u8]> = entry.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
    if matches!(fields.first(), Some(&(b"default" | b"d"))) {
        fields.remove(0);
    }
    let (tag, name, permissions, number) = match fields[..] {
        // The qualifier of these two may be left out.
        [tag @ (b"mask" | b"m" | b"other" | b"o"), permissions] => (tag, &b""[..], permissions, None),
        [tag, name, permissions] => (tag, name, permissions, None),
        [tag, name, permissions, number] => (tag, name, permissions, Some(number)),
        _ => return None,
    };
    let (plain, named) = match tag {
        b"user" | b"u" => (0x01, Some(0x02)),
        b"group" | b"g" => (0x04, Some(0x08)),
        b"mask" | b"m" => (0x10, None),
        b"other" | b"o" => (0x20, None),
        _ => return None,
    };
    let permissions = permissions.iter().try_fold(0, |bits, letter| match letter {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    })?;
    if name.is_empty() {
        return Some((plain, NO_ID, permissions));
    }
    let id = match number {
        Some(number) => decimal(number)?,
        None if name == b"root" => 0,
        None => decimal(name)?,
    };
    Some((named?, id, permissions))
}

fn decimal(digits: &[u8]) -> Option<u32> {
    let id = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (id != NO_ID).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_takes() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "").unwrap();
        let directory = std::fs::File::open(scratch.path()).unwrap();
        let binary = from_text(
            b"user::rwx,user:1000:r--,user:lp:-w-:7\ngroup::r-x #effective:r-x\nmask:rwx,other::---",
        )
        .unwrap();
        crate::fs::xattr::set(&directory, c"f", c"system.posix_acl_access", &binary).unwrap();
        let output = std::process::Command::new("getfacl")
            .args(["-cn", "f"])
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "user::rwx\nuser:7:-w-\nuser:1000:r--\ngroup::r-x\nmask::rwx\nother::---");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for text in ["user:lp:rwx", "user::rwz", "nobody::rwx", "mask:5:r--", "user", "user:4294967295:r--"] {
            let error = from_text(text.as_bytes()).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}

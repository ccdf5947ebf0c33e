//! Where an administrator's kubeconfig is, as kubectl looks for it. Floor 4.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The file that was named; else those of KUBECONFIG, which are merged, unless it names none; else `~/.kube/config`. `None` where there is
/// no home either.
pub fn kubeconfigs(named: Option<&Path>) -> Option<Vec<PathBuf>> {
    files(named, std::env::var_os("KUBECONFIG"), std::env::home_dir())
}

fn files(named: Option<&Path>, environment: Option<OsString>, home: Option<PathBuf>) -> Option<Vec<PathBuf>> {
    if let Some(named) = named {
        return Some(vec![named.to_owned()]);
    }
    let of_environment = environment.iter().flat_map(std::env::split_paths).filter(|path| !path.as_os_str().is_empty());
    let of_environment: Vec<PathBuf> = of_environment.collect();
    match of_environment.is_empty() {
        true => home.filter(|home| !home.as_os_str().is_empty()).map(|home| vec![home.join(".kube/config")]),
        false => Some(of_environment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a:b` was the name of a file, and an empty KUBECONFIG a mistake.
    #[test]
    fn the_files_are_those_that_kubectl_takes() {
        let of = |named: Option<&str>, environment: Option<&str>| {
            let found = files(named.map(Path::new), environment.map(OsString::from), Some("/root".into()));
            found.expect("there is a home").iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(None, Some("a:b")), ["a", "b"]);
        assert_eq!(of(None, Some(":/a b:")), ["/a b"]);
        for nothing in [None, Some(""), Some(":")] {
            assert_eq!(of(None, nothing), ["/root/.kube/config"], "{nothing:?}");
        }
        assert_eq!(of(Some("c:d"), Some("a:b")), ["c:d"], "a file that is named is one file");
        assert_eq!(files(None, None, None), None);
    }
}

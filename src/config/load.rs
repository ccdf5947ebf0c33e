//! Reads the configuration from disk: the main file, and the drop-ins of `conf.d` beside it in order of name.
//! Floor 2, the one edge in this folder. What the texts mean is `parse`'s business.

use std::io;
use std::path::{Path, PathBuf};

use super::{Complaints, Config, SourceFile, parse};

/// Why there is no configuration. The running one, if there is one, was not touched.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The main file, `conf.d`, or a drop-in could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no UTF-8 text from byte {offset} on; TOML is", path.display())]
    NotText { path: PathBuf, offset: usize },
    #[error(transparent)]
    Refused(#[from] Complaints),
}

/// Reads and checks a configuration.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    Ok(parse(&read(path)?)?)
}

/// Reads the main file and each `conf.d/*.toml` beside it; hidden files are left alone. No `conf.d` is no mistake.
pub fn read(path: &Path) -> Result<Vec<SourceFile>, LoadError> {
    let mut files = vec![read_file(path)?];
    for drop_in in drop_ins(&path.with_file_name("conf.d"))? {
        files.push(read_file(&drop_in)?);
    }
    Ok(files)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<SourceFile, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile { path: path.display().to_string(), text }),
        Err(error) => Err(LoadError::NotText { path: path.to_owned(), offset: error.utf8_error().valid_up_to() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn drop_ins_are_read_in_order_of_name_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        fs::write(&main, "main").unwrap();
        assert_eq!(read(&main).unwrap().len(), 1, "without conf.d there is the main file");
        let conf_d = folder.path().join("conf.d");
        fs::create_dir(&conf_d).unwrap();
        for name in ["20-b.toml", "10-a.toml", ".hidden.toml", "10-a.toml.bak", "README"] {
            fs::write(conf_d.join(name), name).unwrap();
        }
        let texts: Vec<String> = read(&main).unwrap().into_iter().map(|file| file.text).collect();
        assert_eq!(texts, ["main", "10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        let text = |error: LoadError| error.to_string();
        assert!(text(load(&main).unwrap_err()).starts_with(&format!("cannot read {}: ", main.display())));
        fs::write(&main, b"a = \"\xff\"").unwrap();
        assert!(text(load(&main).unwrap_err()).contains("no UTF-8 text from byte 5 on"));
        fs::write(&main, "a = ").unwrap();
        assert!(matches!(load(&main), Err(LoadError::Refused(_))));
    }
}

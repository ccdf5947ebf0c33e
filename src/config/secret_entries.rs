//! Takes secrets out of a section: those that its keys name, and what is wrong with them. Floor 1.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::complaint::Place;
use super::key::Row;
use super::reader::Reader;
use super::secrets::{Need, SecretFile, find, without_newline};
use super::shape::quoted;
use super::syntax;
use crate::secret::Secret;

impl Reader<'_> {
    /// The secret of the file that a key names, of at most so many octets. `None` without the key, or with a complaint.
    pub(super) fn secret(&mut self, row: &Row, most: usize) -> Option<SecretFile> {
        let path = self.parsed(row, |text, _| syntax::absolute_path(text))?;
        let secret = self.found(row, &self.place(row.key), &path, most)?;
        Some(SecretFile { path: Some(path), secret })
    }

    /// The secrets of the files that a list names, without those that were complained about.
    pub(super) fn secrets(&mut self, row: &Row, most: usize) -> Vec<SecretFile> {
        let paths = self.items(row, |text, _| syntax::absolute_path(text));
        let mut secrets = Vec::new();
        for (path, place) in paths {
            let secret = self.found(row, &place, &path, most);
            secrets.extend(secret.map(|secret| SecretFile { path: Some(path), secret }));
        }
        secrets
    }

    /// As `secret`; without the key, the systemd credential of this name. `None` only with a complaint; `Some(None)`
    /// without key and credential.
    pub(super) fn secret_or_credential(
        &mut self,
        row: &Row,
        credential: &str,
        most: usize,
    ) -> Option<Option<SecretFile>> {
        if self.given(row.key).is_some() {
            return self.secret(row, most).map(Some);
        }
        let Some(found) = self.secrets.credential(OsStr::new(credential)).transpose() else { return Some(None) };
        let found = found.map(without_newline);
        let secret = self.checked(row, &self.header(), &format!("the credential {credential}"), found, most)?;
        Some(Some(SecretFile { path: None, secret }))
    }

    /// The secret of a file; an empty one where the file is missing and may be.
    fn found(&mut self, row: &Row, place: &Place, path: &Path, most: usize) -> Option<Secret> {
        let found = find(self.secrets, path).map(|(octets, _)| octets);
        let is_missing = matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        let need = if self.section.path == "pulse" { Need::Node } else { Need::Peer };
        if is_missing && self.secrets.may_lack(path, need) {
            return Some(Secret::from(&[][..]));
        }
        self.checked(row, place, &path.display().to_string(), found, most)
    }

    /// What was found, if it can be used. Complaints name the file and never what is in it.
    fn checked(
        &mut self,
        row: &Row,
        place: &Place,
        name: &str,
        found: io::Result<Vec<u8>>,
        most: usize,
    ) -> Option<Secret> {
        let (problem, hint) = match found {
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "create the file, or give the service a systemd credential of the same name"
                    }
                    io::ErrorKind::PermissionDenied => "make it readable by the user of crier only",
                    _ => "use a file that crier can read",
                };
                (format!("the secret {name} cannot be read: {error}"), hint.to_owned())
            }
            Ok(octets) if octets.is_empty() => (
                format!("the secret {name} is empty"),
                format!("write the secret into it, or remove {}", quoted(row.key)),
            ),
            // It would be a part of the secret, which no other host has so.
            Ok(octets) if octets.starts_with("\u{feff}".as_bytes()) => (
                format!("the secret {name} begins with a byte order mark, which an editor put in front of it"),
                "write it again without the first three octets (EF BB BF): `tail -c +4 FILE`".to_owned(),
            ),
            Ok(octets) if octets.len() > most => {
                (format!("the secret {name} is too long"), format!("it can have at most {most} octets"))
            }
            Ok(octets) => return Some(Secret::from(&octets[..])),
        };
        self.complain(place, problem, hint);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SourceFile, document, secrets::Secrets, section::Section, seen::Seen};
    use super::*;

    /// Files and credentials by name.
    struct Stub {
        credentials: Vec<(&'static str, &'static [u8])>,
        files: Vec<(&'static str, io::Result<&'static [u8]>)>,
    }

    impl Secrets for Stub {
        fn credential(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
            Ok(self.credentials.iter().find(|(known, _)| name == *known).map(|(_, octets)| octets.to_vec()))
        }

        fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
            match self.files.iter().find(|(known, _)| path == Path::new(known)) {
                Some((_, Ok(octets))) => Ok(octets.to_vec()),
                Some((_, Err(error))) => Err(error.kind().into()),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// What `[pulse]` with this text gives for its key, and the complaints.
    fn read(stub: &Stub, text: &str) -> (Option<SecretFile>, Vec<(String, String)>) {
        let source = SourceFile { path: "crier.toml".to_owned(), text: text.to_owned() };
        let table = document::read(0, &source).expect("the text is TOML");
        let mut complaints = Vec::new();
        let section = Section::find("pulse").expect("there is such a section");
        let row = section.row("key-file").expect("there is such a key");
        let mut seen = Seen::default();
        let mut reader = Reader { section, table: &table, secrets: stub, seen: &mut seen, complaints: &mut complaints };
        let secret = reader.secret_or_credential(row, "pulse.key", 4).flatten();
        let told = complaints.iter().map(|it| (text[it.place.start..it.place.end].to_owned(), it.message.clone()));
        (secret, told.collect())
    }

    fn octets(stub: &Stub, text: &str) -> Vec<u8> {
        let (secret, complaints) = read(stub, text);
        assert_eq!(complaints, [], "{text}");
        secret.expect("there is a secret").secret.expose().to_vec()
    }

    #[test]
    fn a_credential_of_the_files_name_wins_over_the_file_and_stands_in_for_a_key_left_out() {
        let files = || vec![("/etc/k", Ok(&b"file"[..])), ("/etc/pulse.key", Ok(&b"path"[..]))];
        let with = Stub { credentials: vec![("k", b"cred"), ("pulse.key", b"own")], files: files() };
        let without = Stub { credentials: vec![], files: files() };
        assert_eq!(octets(&with, "key-file = \"/etc/k\""), b"cred");
        assert_eq!(octets(&with, "key-file = \"/etc/pulse.key\""), b"own");
        assert_eq!(octets(&without, "key-file = \"/etc/k\""), b"file");
        assert_eq!(octets(&with, ""), b"own");
        assert_eq!(read(&with, "").0.unwrap().path, None);
        assert_eq!(read(&without, ""), (None, vec![]), "neither is no mistake by itself");
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_a_secret() {
        for (content, secret) in [
            (&b"a\n"[..], &b"a"[..]),
            (b"a\r\n", b"a"),
            (b"a\n\n", b"a\n"),
            (b"\na", b"\na"),
            (b"a\r", b"a\r"),
            (b"abcd\n", b"abcd"),
        ] {
            let stub = Stub { credentials: vec![], files: vec![("/k", Ok(content))] };
            assert_eq!(octets(&stub, "key-file = \"/k\""), secret, "{content:?}");
        }
    }

    /// It would be a part of the password or key, and no router or node has it so.
    #[test]
    fn a_byte_order_mark_before_a_secret_is_named() {
        let stub = Stub { credentials: vec![], files: vec![("/k", Ok("\u{feff}a\n".as_bytes()))] };
        let (secret, complaints) = read(&stub, "key-file = \"/k\"");
        assert_eq!(secret, None);
        let said = "the secret /k begins with a byte order mark, which an editor put in front of it";
        assert_eq!(complaints, [("\"/k\"".to_owned(), said.to_owned())]);
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_complained_about_at_its_key_without_its_content() {
        let stub = Stub {
            credentials: vec![("empty", b"\n")],
            files: vec![
                ("/long", Ok(b"abcde")),
                ("/denied", Err(io::ErrorKind::PermissionDenied.into())),
                ("/empty", Ok(b"good")),
            ],
        };
        for (path, message) in [
            ("/long", "the secret /long is too long"),
            ("/denied", "the secret /denied cannot be read: permission denied"),
            ("/none", "the secret /none cannot be read: entity not found"),
            ("/empty", "the secret /empty is empty"),
            ("k", "\"k\" is not an absolute path"),
        ] {
            let (secret, complaints) = read(&stub, &format!("key-file = \"{path}\""));
            assert_eq!(secret, None, "{path}");
            assert_eq!(complaints, [(format!("\"{path}\""), message.to_owned())]);
        }
    }
}

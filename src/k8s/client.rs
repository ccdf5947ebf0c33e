//! The client of the API server, from a kubeconfig or from a pod's service account. Floor 2.
//!
//! TLS is rustls; names are resolved inside the process, because a static binary cannot load the host's name service modules.
//! Nothing here limits the rate of requests, and nothing retries: each caller decides what a failure means for it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use super::client_error::ClientError;
use super::connection::assemble_all;
use super::credentials;
pub use super::credentials::{Renewal, all_of, merged};
use crate::config::Access;
use crate::world::ClientCertificate;

/// A client for the API server, and what keeps it up to date while its files change. Opens no connection; the first request
/// does.
pub async fn build(access: &Access) -> Result<(kube::Client, Renewal), ClientError> {
    build_for(access, &[]).await
}

/// The same, with further API servers of the cluster: the next one is asked once one cannot be reached.
pub async fn build_for(access: &Access, servers: &[String]) -> Result<(kube::Client, Renewal), ClientError> {
    let (config, newest, renewal) = credentials::open(access, servers).await?;
    Ok((kube::Client::new(newest, config.default_namespace), renewal))
}

/// A client for a command, which is over before credentials are renewed, of kubeconfigs that are merged; and the URL that it asks.
pub async fn build_of(kubeconfigs: &[PathBuf]) -> Result<(kube::Client, String), ClientError> {
    let (config, newest) = credentials::of_merged(kubeconfigs).await?;
    let server = config.cluster_url.to_string();
    Ok((kube::Client::new(newest, config.default_namespace), server))
}

/// Why a kubeconfig with this content could not be used at `path`; else its client certificate. Nothing is written, and no connection opened.
/// `at`: where a file is that it names, on a host that may be a folder here.
pub async fn check(
    content: &[u8],
    path: &Path,
    at: impl Fn(&Path) -> PathBuf,
    wall: SystemTime,
) -> Result<Option<ClientCertificate>, ClientError> {
    let (config, _) = credentials::of_content(content, path, at).await?;
    assemble_all(&config, &[])?;
    let certificate = credentials::client_certificate(&config, path);
    if let Some(ended) = certificate.as_ref().filter(|it| it.has_ended(wall)) {
        return Err(ClientError::CertificateEnded { ended: ended.clone() });
    }
    credentials::names_somebody(&config, &Access::Kubeconfig(path.to_owned())).map(|()| certificate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::k8s::fake::{Answer, FakeApi, Fault, SERVICES};
    use crate::world::{Area, Fact};

    async fn refused(kubeconfig: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig).unwrap();
        match build(&Access::Kubeconfig(path)).await {
            Ok(_) => panic!("a client was built"),
            Err(error) => error.to_string(),
        }
    }

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],
               clusters: [{{name: c, cluster: {cluster}}}], users: [{{name: u, user: {user}}}]}}"
        )
    }

    #[tokio::test]
    async fn a_fifo_in_the_place_of_the_kubeconfig_or_of_a_file_that_it_names_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        crate::state_file::hostile::make_fifo(&fifo);
        let named = folder.path().join("kubeconfig");
        let user = format!("{{tokenFile: {}}}", fifo.display());
        std::fs::write(&named, kubeconfig("{server: 'https://127.0.0.1:6443'}", &user)).unwrap();
        for path in [fifo, named] {
            let error = build(&Access::Kubeconfig(path)).await.err().expect("nobody writes").to_string();
            assert!(error.contains("a FIFO and no regular file"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_says_why() {
        let server = "{server: 'https://127.0.0.1:6443'}";
        let table = [
            (
                kubeconfig(server, "{exec: {apiVersion: client.authentication.k8s.io/v1, command: aws-login}}"),
                "aws-login",
            ),
            (kubeconfig(server, "{auth-provider: {name: oidc, config: {}}}"), "\"oidc\""),
            (
                kubeconfig("{server: 'https://127.0.0.1:6443', proxy-url: 'http://proxy:3128'}", "{}"),
                "http://proxy:3128",
            ),
            (
                kubeconfig(server, "{client-certificate: /nowhere/tls.crt, client-key: /nowhere/tls.key}"),
                "/nowhere/tls",
            ),
            ("{apiVersion: v1, kind: Config}".to_owned(), "kubeconfig"),
            (kubeconfig("{server: 'https://127.0.0.1:6443', tls-server-name: '-'}", "{}"), "tls-server-name"),
            (kubeconfig(server, "{token: \"ab\\ncd\"}"), "no line of text"),
            (kubeconfig(server, "{token: ''}"), "no line of text"),
            (kubeconfig(server, "{token: ' '}"), "no line of text"),
            (kubeconfig(server, &of_version_1()), "X.509 version 1"),
            (kubeconfig("{server: 'ftp://127.0.0.1'}", "{token: t}"), "\"ftp://127.0.0.1/\" is no URL"),
            (kubeconfig("{server: '/api'}", "{token: t}"), "\"/api\" is no URL"),
            (kubeconfig("{server: ''}", "{token: t}"), "kubeconfig"),
            (kubeconfig(server, "{}"), "no token, tokenFile or client certificate"),
            (kubeconfig(server, "{username: u, password: p}"), "`crier kubeconfig`"),
            (
                kubeconfig("{server: 'https://127.0.0.1:6443', certificate-authority-data: AAAA}", "{token: t}"),
                "kubeconfig holds no certificate",
            ),
        ];
        for (kubeconfig, word) in table {
            let text = refused(&kubeconfig).await;
            assert!(text.contains(word), "{word} in: {text}");
        }
    }

    /// Kubectl takes a server without a scheme. Every agent aborted at its next request, and at each start.
    #[tokio::test]
    async fn a_server_without_a_scheme_is_asked_over_tls_and_nothing_panics() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        for server in ["127.0.0.1:1", "localhost", "'[::1]:1'"] {
            std::fs::write(&path, kubeconfig(&format!("{{server: {server}}}"), "{token: t}")).unwrap();
            let (client, _) = build_for(&Access::Kubeconfig(path.clone()), &["127.0.0.1:2".to_owned()]).await.unwrap();
            let request = http::Request::get(SERVICES).body(Vec::new()).unwrap();
            client.request::<serde_json::Value>(request).await.expect_err("nobody listens there");
        }
    }

    #[tokio::test]
    async fn a_user_without_credentials_is_refused_before_the_kubeconfig_is_put_in_place() {
        let check = async |server: &str, user| {
            let content = kubeconfig(&format!("{{server: '{server}'}}"), user);
            super::check(content.as_bytes(), Path::new("/kubeconfig"), Path::to_owned, SystemTime::UNIX_EPOCH)
                .await
                .map_err(|error| error.to_string())
        };
        let error = check("https://127.0.0.1:6443", "{username: admin, password: x}").await.unwrap_err();
        assert!(error.contains("no token"), "{error}");
        check("https://127.0.0.1:6443", "{token: t}").await.unwrap();
        check("http://127.0.0.1:8001", "{}").await.unwrap();
    }

    #[tokio::test]
    async fn the_patience_that_a_busy_api_server_asks_for_in_plain_text_is_heard() {
        let api = FakeApi::start().await;
        api.fault(Fault { method: Method::GET, path: SERVICES, watch: None, answer: Answer::Busy(7) });
        let client = api.client().await;
        let request = || http::Request::get(SERVICES).body(Vec::new()).unwrap();
        match client.request::<serde_json::Value>(request()).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, status.message.as_str()), (429, "Too Many Requests; retry after 7 s"));
                assert_eq!(status.details.map(|details| details.retry_after_seconds), Some(7));
            }
            other => panic!("it was told to wait, and got {other:?}"),
        }
        client.request::<serde_json::Value>(request()).await.expect("other answers go through as they are");
    }

    /// Kubectl takes it for an empty one.
    #[test]
    fn a_kubeconfig_that_is_dev_null_is_left_out_beside_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig("{server: 'https://127.0.0.1:6443'}", "{token: t}")).unwrap();
        let read = merged(&["/dev/null".into(), path]).expect("the other one is good");
        assert_eq!(read.current_context.as_deref(), Some("c"));
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let Err(error) = build(&Access::Kubeconfig("/nowhere/kubeconfig".into())).await else { panic!("it was built") };
        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn the_next_server_is_asked_once_one_cannot_be_reached_and_all_requests_are_counted() {
        let (third, api) = (FakeApi::start().await, FakeApi::start().await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        // Nobody listens on port 1.
        std::fs::write(&path, kubeconfig("{server: 'http://127.0.0.1:1'}", "{token: t}")).unwrap();
        let servers = [format!("http://{}", api.address), format!("http://{}", third.address)];
        let (client, renewal) = build_for(&Access::Kubeconfig(path), &servers).await.unwrap();
        let ask = || async {
            let request = http::Request::get(SERVICES).body(Vec::new()).unwrap();
            client.request::<serde_json::Value>(request).await.is_ok()
        };
        assert!(!ask().await, "the first cannot be reached: whoever asks tries again");
        assert!(ask().await && ask().await, "and reaches the second from then on");
        assert_eq!(api.requests(&Method::GET, SERVICES).len(), 2);
        assert!(third.requests(&Method::GET, SERVICES).is_empty(), "the third is not needed");
        // One that takes requests and answers none: whoever asked gives up.
        let answer = Answer::Late(Duration::from_secs(60));
        api.fault(Fault { method: Method::GET, path: SERVICES, watch: None, answer });
        assert!(tokio::time::timeout(Duration::from_millis(300), ask()).await.is_err());
        assert!(ask().await);
        assert_eq!(third.requests(&Method::GET, SERVICES).len(), 1, "then the third is asked");
        assert_eq!(renewal.requests().load(std::sync::atomic::Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_token_that_is_renewed_on_disk_is_read_again_and_ends_where_its_line_ends() {
        let api = FakeApi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("kubeconfig"), folder.path().join("token"));
        let cluster = format!("{{server: 'http://{}'}}", api.address);
        std::fs::write(&path, kubeconfig(&cluster, "{tokenFile: token}")).unwrap();
        // A file of two lines ended the process.
        std::fs::write(&token, "a warning\nfirst\n").unwrap();
        let error = build(&Access::Kubeconfig(path.clone())).await.err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("no line of text")));
        std::fs::write(&token, "first\n").unwrap();
        let (client, renewal) = build(&Access::Kubeconfig(path)).await.unwrap();
        let (facts, _told) = tokio::sync::mpsc::channel(8);
        let task = tokio::spawn(renewal.run(facts));
        let ask = || async {
            let request = http::Request::get(SERVICES).body(Vec::new()).unwrap();
            let refused = client.request::<serde_json::Value>(request).await.is_err();
            (refused, api.requests(&Method::GET, SERVICES).pop().expect("it was asked").authorization)
        };
        assert_eq!(ask().await, (false, "Bearer first".to_owned()));
        std::fs::write(&token, "second\n").unwrap();
        let answer = Answer::Status(401, "Unauthorized");
        api.fault(Fault { method: Method::GET, path: SERVICES, watch: None, answer });
        assert!(ask().await.0);
        let renewed = tokio::time::timeout(Duration::from_secs(10), async {
            while ask().await.1 != "Bearer second" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        renewed.await.expect("an answer 401 is enough to read it again");
        std::fs::remove_file(&token).unwrap();
        api.fault(Fault {
            method: Method::GET,
            path: SERVICES,
            watch: None,
            answer: Answer::Status(401, "Unauthorized"),
        });
        assert!(ask().await.0);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(ask().await, (false, "Bearer second".to_owned()), "files that cannot be used change nothing");
        task.abort();
    }

    /// Input: a kubeconfig that names a new file, which comes some seconds later; the API server answers no 401 meanwhile.
    /// Output: it is told that the credentials cannot be used and why, and they are read once the file is there. They never were.
    #[tokio::test]
    async fn credentials_that_come_file_by_file_are_read_once_all_are_there() {
        let api = FakeApi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("kubeconfig"), folder.path().join("new.token"));
        let cluster = format!("{{server: 'http://{}'}}", api.address);
        std::fs::write(&path, kubeconfig(&cluster, "{token: first}")).unwrap();
        let (client, mut told, task) = renewing(&path).await;
        let soon = Duration::from_secs(20);
        std::fs::write(&path, kubeconfig(&cluster, "{tokenFile: new.token}")).unwrap();
        let problem = match tokio::time::timeout(soon, told.recv()).await.expect("it is told") {
            Some(Fact::Problems(Area::Credentials, problems)) if problems.len() == 1 => problems[0].to_string(),
            other => panic!("{other:?}"),
        };
        assert!(problem.contains("new.token") && problem.contains(&path.display().to_string()), "{problem}");
        std::fs::write(&token, "second\n").unwrap();
        let better = tokio::time::timeout(soon, told.recv()).await.expect("it is told");
        assert_eq!(better, Some(Fact::Problems(Area::Credentials, Vec::new())));
        let request = http::Request::get(SERVICES).body(Vec::new()).unwrap();
        client.request::<serde_json::Value>(request).await.unwrap();
        assert_eq!(api.requests(&Method::GET, SERVICES).pop().expect("it was asked").authorization, "Bearer second");
        task.abort();
    }

    /// Input: a kubeconfig with a client certificate that has ended, in itself or in a file; then one that is good. Output: the
    /// agent is told of each, with its name and time; to put the ended one in place is refused.
    #[tokio::test]
    async fn the_end_of_a_client_certificate_is_told_and_read_again_with_it() {
        use crate::k8s::base64;
        use crate::k8s::certificate_request::self_signed;

        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("kubeconfig"), folder.path().join("c.crt"));
        let (key, ended) = self_signed(["200101000000Z", "210101000000Z"]);
        let data = |text: &str| format!("client-certificate-data: {}", base64(text.as_bytes()));
        let key_data = format!("client-key-data: {}", base64(key.expose()));
        let of = |certificate: &str| {
            kubeconfig("{server: 'https://127.0.0.1:1'}", &format!("{{{certificate}, {key_data}}}"))
        };
        std::fs::write(&file, &ended).unwrap();
        let in_file = of(&format!("client-certificate: {}", file.display()));
        for (content, place) in [
            (of(&data(&ended)), format!("in the kubeconfig {}", path.display())),
            (in_file, file.display().to_string()),
        ] {
            let checked = super::check(content.as_bytes(), &path, Path::to_owned, crate::clock::wall()).await;
            let error = checked.expect_err("it has ended").to_string();
            let words = format!("the client certificate {place} ended on 2021-01-01T00:00:00Z");
            assert!(error.contains(&words), "{words} in: {error}");
            super::check(content.as_bytes(), &path, Path::to_owned, SystemTime::UNIX_EPOCH)
                .await
                .expect("it was good once");
            std::fs::write(&path, content).unwrap();
            let (_, renewal) = build(&Access::Kubeconfig(path.clone())).await.unwrap();
            assert_eq!(renewal.certificate().map(|it| it.place.as_str()), Some(&*place));
        }
        let (_client, mut told, task) = renewing(&path).await;
        let mut next = async || match tokio::time::timeout(Duration::from_secs(20), told.recv()).await {
            Ok(Some(Fact::ClientCertificate(Some(certificate)))) => certificate.end(),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, "2021-01-01T00:00:00Z");
        let (key, good) = self_signed(["200101000000Z", "20990101000000Z"]);
        let text = format!("{{{}, client-key-data: {}}}", data(&good), base64(key.expose()));
        std::fs::write(&path, kubeconfig("{server: 'https://127.0.0.1:1'}", &text)).unwrap();
        assert_eq!(next().await, "2099-01-01T00:00:00Z");
        task.abort();
    }

    /// Input: a client certificate that is good is followed by one that has ended, as of a restored backup; then by another good
    /// one, with a name in Latin-1 before it. Output: the ended one takes no place, and it is told; the other one does, and its end is known.
    #[tokio::test]
    async fn a_certificate_that_has_ended_does_not_take_the_place_of_a_good_one() {
        use crate::k8s::base64;
        use crate::k8s::certificate_request::self_signed;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let write = |begins: &str, ends: &str, before: &[u8]| {
            let (key, pem) = self_signed([begins, ends]);
            let octets = [before, pem.as_bytes()].concat();
            let (pem, key) = (base64(&octets), base64(key.expose()));
            let user = format!("{{client-certificate-data: {pem}, client-key-data: {key}}}");
            std::fs::write(&path, kubeconfig("{server: 'https://127.0.0.1:1'}", &user)).unwrap();
        };
        write("200101000000Z", "20980101000000Z", b"");
        let (_client, mut told, task) = renewing(&path).await;
        let mut next = async || match tokio::time::timeout(Duration::from_secs(20), told.recv()).await {
            Ok(Some(Fact::ClientCertificate(Some(certificate)))) => certificate.end(),
            Ok(Some(Fact::Problems(Area::Credentials, problems))) => {
                problems.first().map(|it| it.to_string()).unwrap_or_default()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, "2098-01-01T00:00:00Z");
        write("200101000000Z", "20250101000000Z", b"");
        let problem = next().await;
        assert!(problem.contains("ended on 2025-01-01") && problem.contains("stay in use"), "{problem}");
        write("200101000000Z", "20990101000000Z", b"subject=O = M\xfcller\n");
        assert_eq!(next().await, "", "they are used");
        assert_eq!(next().await, "2099-01-01T00:00:00Z");
        task.abort();
    }

    /// By the kubeconfig there, whose files are looked at often; and what is told of them.
    async fn renewing(path: &Path) -> (kube::Client, tokio::sync::mpsc::Receiver<Fact>, tokio::task::JoinHandle<()>) {
        let (client, mut renewal) = build(&Access::Kubeconfig(path.to_owned())).await.unwrap();
        renewal.look = Duration::from_millis(20);
        let (facts, told) = tokio::sync::mpsc::channel(8);
        (client, told, tokio::spawn(renewal.run(facts)))
    }

    /// A certificate as `openssl x509 -req` makes it. That the key is another one's is not looked at any more.
    fn of_version_1() -> String {
        use crate::k8s::base64;
        let (key, _) = crate::k8s::certificate_request::self_signed(["200101000000Z", "20500101000000Z"]);
        let pem = base64(crate::k8s::fake::OF_OPENSSL.as_bytes());
        format!("{{client-certificate-data: {pem}, client-key-data: {}}}", base64(key.expose()))
    }

    /// Input: the kubeconfig becomes one whose user has no credentials, or is not there. Output: it is told, and the former ones
    /// stay in use until it has some. The agent asked as nobody, and said that all is well.
    #[tokio::test]
    async fn a_kubeconfig_without_credentials_takes_no_others_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let of = |user: &str| kubeconfig("{server: 'https://127.0.0.1:1'}", user);
        std::fs::write(&path, of("{token: first}")).unwrap();
        let (_client, mut told, task) = renewing(&path).await;
        let mut next = async || match tokio::time::timeout(Duration::from_secs(20), told.recv()).await {
            Ok(Some(Fact::Problems(Area::Credentials, problems))) => problems.first().map(|it| it.to_string()),
            other => panic!("{other:?}"),
        };
        for without in [of("{}"), of("{token: t}").replace("user: u", "user: zz")] {
            std::fs::write(&path, without).unwrap();
            let problem = next().await.expect("it is told");
            assert!(problem.contains("stay in use"), "{problem}");
            std::fs::write(&path, of("{token: second}")).unwrap();
            assert_eq!(next().await, None, "they are used");
        }
        task.abort();
    }

    /// Input: other users and clusters of the kubeconfig name files that are not here; the user has a token and a
    /// tokenFile. Output: only what the current context uses is read, and the file counts where it has a token, as with kubectl.
    #[tokio::test]
    async fn of_a_kubeconfig_what_the_current_context_uses_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("kubeconfig"), folder.path().join("token"));
        let fifo = folder.path().join("fifo");
        crate::state_file::hostile::make_fifo(&fifo);
        let others = format!("{{name: o, user: {{tokenFile: /nowhere/token, client-key: {}}}}}", fifo.display());
        let text = kubeconfig("{server: 'http://127.0.0.1:1'}", "{token: stale, tokenFile: token}");
        let text = text.replace("users: [", &format!("users: [{others}, "));
        let other =
            "clusters: [{name: o, cluster: {server: 'https://127.0.0.1:1', certificate-authority: /nowhere/ca}}, ";
        std::fs::write(&path, text.replace("clusters: [", other)).unwrap();
        for (file, counts) in [(None, "stale"), (Some("good\n"), "good"), (Some("\n"), "stale")] {
            if let Some(file) = file {
                std::fs::write(&token, file).unwrap();
            }
            let (config, ..) = credentials::open(&Access::Kubeconfig(path.clone()), &[]).await.unwrap();
            let token = config.auth_info.token.expect("a token");
            assert_eq!(secrecy::ExposeSecret::expose_secret(&token), counts, "{file:?}");
        }
        let user = "{tokenFile: /nowhere/token}";
        let error = refused(&kubeconfig("{server: 'http://127.0.0.1:1'}", user)).await;
        assert!(error.contains("/nowhere/token, which the kubeconfig /"), "{error}");
    }
}

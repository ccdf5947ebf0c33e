//! What the agent costs in memory: the whole agent, in a process of its own, against an API server made up in this one.
//! `cargo bench --bench memory [WORD]`; a word names one row. Read resident memory, how much of it is anonymous (all but the
//! program file's own pages) and the peak, and resident memory and peak again after a relist.
//!
//! With `CRIER_BIN=target/dist/crier` the agent is that program, so that what ships is measured. Without it the agent is this
//! program, whose file is larger.
//!
//! The agent runs `agent::run` with one BGP peer that never answers and no `[[l2]]`, so that the bench needs neither root nor
//! a namespace. Lists come in pages of generated JSON, with managedFields and annotations of the usual size.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crier::agent::{self, wiring};
use crier::clock;
use crier::config::{self, SourceFile};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What a cluster, or a folder of manifests, holds.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    load_balancers: usize,
    cluster_ips: usize,
    endpoints_per_service: usize,
    manifests: bool,
    /// The most that may be resident, in MiB, before and after a relist.
    goal: Option<f64>,
}

const SCENARIOS: &[Scenario] = &[
    row("nothing", 0, 0, 0, None),
    row("ours-1000", 1000, 0, 1, None),
    row("ours-10000", 10_000, 0, 5, Some(60.0)),
    row("others-10000", 20, 10_000, 5, Some(24.0)),
    Scenario { manifests: true, ..row("manifests-10000", 10_000, 0, 1, None) },
];

const fn row(
    name: &'static str,
    load_balancers: usize,
    cluster_ips: usize,
    endpoints_per_service: usize,
    goal: Option<f64>,
) -> Scenario {
    Scenario { name, load_balancers, cluster_ips, endpoints_per_service, manifests: false, goal }
}

const NODES: usize = 100;
const NODE: &str = "node-000";
const SERVICES_PER_FILE: usize = 100;
const WORKERS: usize = 2;
/// Services, EndpointSlices, Nodes and Namespaces.
const KINDS: usize = 4;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("agent"), Some(file)) => run_agent(&file),
        (word, _) => {
            let wanted = |scenario: &&Scenario| word.is_none_or(|word| scenario.name.contains(word));
            println!(
                "{:<16}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>6}",
                "MiB", "resident", "anonymous", "peak", "relisted", "peak", "goal"
            );
            SCENARIOS.iter().filter(wanted).for_each(measure);
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.expect("a runtime starts")
}

/// The agent, as `crier run` starts it. Ends when it is killed.
fn run_agent(file: &str) {
    agent::heap::give_back_early();
    let text = std::fs::read_to_string(file).expect("the configuration was written");
    let files = vec![SourceFile { path: file.to_owned(), text }];
    let config = config::parse(&files, &config::NoSecrets);
    let config = config.expect("the configuration of the benchmark is good");
    runtime().block_on(async move {
        let (_annotate, annotations) = wiring::annotations();
        let start = agent::Start {
            main: file.into(),
            files,
            config,
            unconfirmed: Ok(None),
            node: Some(NODE.into()),
            log: None,
            queries: wiring::queries(),
            orders: wiring::orders(),
            annotations,
            cluster: None,
        };
        agent::run(start).await.expect("the agent runs until it is killed");
    });
}

fn measure(scenario: &Scenario) {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let api = Api::start(*scenario).await;
        write_files(folder.path(), scenario, api.address);
        let agent = Agent::start(folder.path());
        if !scenario.manifests {
            api.every_kind_is_listed(0).await;
        }
        let first = agent.when_idle().await;
        let second = match scenario.manifests {
            true => None,
            false => {
                let lists = api.shared.lists.load(Ordering::Relaxed);
                api.expire();
                api.every_kind_is_listed(lists).await;
                Some(agent.when_idle().await)
            }
        };
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        let (again, again_peak) = second.map_or_else(Default::default, |it| (mib(it.resident), mib(it.peak)));
        let goal = scenario.goal.map(|goal| goal.to_string()).unwrap_or_default();
        println!(
            "{:<16}  {:>9}  {:>9}  {:>9}  {again:>9}  {again_peak:>9}  {goal:>6}",
            scenario.name,
            mib(first.resident),
            mib(first.anonymous),
            mib(first.peak)
        );
    });
}

fn write_files(folder: &Path, scenario: &Scenario, api: SocketAddr) {
    let source = if scenario.manifests {
        let manifests = folder.join("manifests");
        std::fs::create_dir(&manifests).expect("a folder");
        let numbers: Vec<usize> = (0..scenario.load_balancers).collect();
        for (file, numbers) in numbers.chunks(SERVICES_PER_FILE).enumerate() {
            let objects = numbers.iter().flat_map(|number| [service(scenario, *number), slice(scenario, *number)]);
            let text = objects.collect::<Vec<_>>().join("\n---\n");
            std::fs::write(manifests.join(format!("services-{file:03}.yaml")), text).expect("a manifest is written");
        }
        format!("[manifests]\nfolder = \"{}\"\n", manifests.display())
    } else {
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{api}")}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
        });
        std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).expect("a kubeconfig is written");
        format!("[kubernetes]\nkubeconfig = \"{}\"\n", folder.join("kubeconfig").display())
    };
    let config = format!(
        "{source}[api]\nsocket = \"{}\"\nlisten = \"\"\n[state]\nfolder = \"{}\"\n[[pool]]\nname = \"public\"\naddresses = [\"10.64.0.0/16\"]\n[bgp]\nasn = 64513\n\
         listen = []\nrouter-id = \"10.0.0.9\"\n[[bgp.peer]]\nname = \"tor\"\naddress = \"127.0.0.1\"\nport = 1\nasn = 64512\n\
         [[bgp.advertisement]]\nservice-selector = \"tier notin (back)\"\n",
        folder.join("crier.sock").display(),
        folder.join("state").display()
    );
    std::fs::write(folder.join("crier.toml"), config).expect("a configuration is written");
}

/// The agent's process; killed when dropped.
struct Agent(Child);

struct Memory {
    resident: u64,
    anonymous: u64,
    peak: u64,
}

impl Agent {
    fn start(folder: &Path) -> Agent {
        let file = folder.join("crier.toml");
        let mut command = match std::env::var_os("CRIER_BIN") {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(["run", "--node", NODE, "--config"]).arg(file).stderr(Stdio::null());
                command
            }
            None => {
                let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
                command.arg("agent").arg(file);
                command
            }
        };
        Agent(command.stdin(Stdio::null()).spawn().expect("the agent starts"))
    }

    /// Its memory in KiB once it has used no processor time for two seconds.
    async fn when_idle(&self) -> Memory {
        let deadline = clock::now() + Duration::from_secs(180);
        let (mut used, mut since) = (self.processor_ticks(), clock::now());
        while clock::since(since) < Duration::from_secs(2) {
            assert!(clock::now() < deadline, "the agent does not come to rest");
            sleep(Duration::from_millis(100)).await;
            let now = self.processor_ticks();
            if now > used + 1 {
                (used, since) = (now, clock::now());
            }
        }
        let status = self.read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
            line.trim_end_matches("kB").trim().parse().expect("a number of KiB")
        };
        Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), peak: field("VmHWM:") }
    }

    fn processor_ticks(&self) -> u64 {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(')').expect("the name ends");
        let field = |number: usize| fields.split_whitespace().nth(number).and_then(|text| text.parse::<u64>().ok());
        field(11).zip(field(12)).map(|(user, system)| user + system).expect("the kernel tells it")
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("the agent lives")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API server that holds a scenario and never changes.
struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    scenario: Scenario,
    /// Raised to end every watch with 410.
    expired: watch::Sender<usize>,
    /// Lists that were answered to their end.
    lists: AtomicUsize,
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

impl Api {
    async fn start(scenario: Scenario) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared { scenario, expired: watch::Sender::new(0), lists: AtomicUsize::new(0) });
        let of_server = shared.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let shared = of_server.clone();
                let service = hyper::service::service_fn(move |request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(answer(request, &shared).await) }
                });
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        Api { address, shared }
    }

    /// Waits until each kind was listed to its end after that many lists.
    async fn every_kind_is_listed(&self, since: usize) {
        let listing = async {
            while self.shared.lists.load(Ordering::Relaxed) < since + KINDS {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), listing).await.expect("every kind is listed");
    }

    fn expire(&self) {
        self.shared.expired.send_modify(|times| *times += 1);
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    if request.method() == Method::POST || request.method() == Method::PUT {
        // The Lease, taken and renewed.
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return whole(StatusCode::OK, body);
    }
    if query.contains("sendInitialEvents=true") {
        return whole(StatusCode::UNPROCESSABLE_ENTITY, r#"{"kind":"Status","status":"Failure","code":422}"#.into());
    }
    if query.contains("watch=true") {
        let expired = shared.expired.subscribe();
        let events = stream::once(async move {
            let mut expired = expired;
            let _ = expired.changed().await;
            let event =
                r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"message":"too old"}}"#;
            Ok(Frame::data(Bytes::from(format!("{event}\n"))))
        });
        return Response::new(StreamBody::new(events.boxed()));
    }
    let scenario = &shared.scenario;
    let all = scenario.load_balancers + scenario.cluster_ips;
    match path.rsplit('/').next() {
        Some("services") => page(shared, &query, all, service),
        Some("endpointslices") => page(shared, &query, all, slice),
        Some("nodes") => page(shared, &query, NODES, node),
        Some("namespaces") => page(shared, &query, 1, |_, _| r#"{"metadata":{"name":"bench"}}"#.to_owned()),
        _ => whole(StatusCode::NOT_FOUND, r#"{"kind":"Status","status":"Failure","code":404,"message":"no"}"#.into()),
    }
}

fn page(shared: &Shared, query: &str, all: usize, object: fn(&Scenario, usize) -> String) -> Response<Body> {
    let number = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<usize>().ok())
    };
    let from = number("continue").unwrap_or(0);
    let to = (from + number("limit").unwrap_or(all)).min(all);
    let items: Vec<String> = (from..to).map(|number| object(&shared.scenario, number)).collect();
    let more = if to < all { format!(r#","continue":"{to}""#) } else { String::new() };
    if to == all {
        shared.lists.fetch_add(1, Ordering::Relaxed);
    }
    let text = format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"900000"{more}}},"items":[{}]}}"#,
        items.join(",")
    );
    whole(StatusCode::OK, text.into())
}

fn whole(status: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(stream::iter([Ok(Frame::data(text))]).boxed()));
    *response.status_mut() = status;
    response
}

fn uid(number: usize) -> String {
    format!("5b8e{number:04x}-7d4f-4f0e-9a51-{number:012x}")
}

/// Ours first, each with its address; the others behind.
fn service(scenario: &Scenario, number: usize) -> String {
    let ours = number < scenario.load_balancers;
    let (kind, status) = if ours {
        let address = std::net::Ipv4Addr::from_bits(0x0a40_0000 + number as u32);
        ("LoadBalancer", format!(r#"{{"loadBalancer":{{"ingress":[{{"ip":"{address}","ipMode":"VIP"}}]}}}}"#))
    } else {
        ("ClusterIP", r#"{"loadBalancer":{}}"#.to_owned())
    };
    let name = format!("service-{number:05}");
    let spec = format!(
        r#"{{"type":"{kind}","clusterIP":"10.96.{}.{}","clusterIPs":["10.96.{}.{}"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster","externalTrafficPolicy":"Cluster","sessionAffinity":"None","selector":{{"app.kubernetes.io/name":"{name}"}},"ports":[{{"name":"http","port":80,"protocol":"TCP","targetPort":8080}},{{"name":"https","port":443,"protocol":"TCP","targetPort":8443}}]}}"#,
        number / 250,
        number % 250,
        number / 250,
        number % 250
    );
    let labels =
        format!(r#"{{"app.kubernetes.io/name":"{name}","app.kubernetes.io/managed-by":"Helm","tier":"front"}}"#);
    let applied = format!(r#"{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"spec\":{}}}"#, spec.replace('"', "\\\""));
    format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"bench","uid":"{}","resourceVersion":"{}","creationTimestamp":"2026-01-01T00:00:00Z","labels":{labels},"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{applied}","meta.helm.sh/release-name":"{name}"}},"managedFields":[{}]}},"spec":{spec},"status":{status}}}"#,
        uid(number),
        100_000 + number,
        managed_fields()
    )
}

fn managed_fields() -> String {
    let fields: Vec<String> =
        (0..24).map(|number| format!(r#""f:field-{number}":{{".":{{}},"f:inner":{{}}}}"#)).collect();
    format!(
        r#"{{"manager":"kubectl","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{{}}}}}"#,
        fields.join(",")
    )
}

fn slice(scenario: &Scenario, number: usize) -> String {
    let endpoint = |endpoint: usize| {
        let of_all = number * scenario.endpoints_per_service + endpoint;
        let node = (of_all * 7) % NODES;
        format!(
            r#"{{"addresses":["10.{}.{}.{}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{node:03}","targetRef":{{"kind":"Pod","namespace":"bench","name":"service-{number:05}-{endpoint}","uid":"{}"}}}}"#,
            244 + of_all / 62_500,
            of_all / 250 % 250,
            of_all % 250,
            uid(of_all)
        )
    };
    let endpoints: Vec<String> = (0..scenario.endpoints_per_service).map(endpoint).collect();
    format!(
        r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"service-{number:05}-x2v7p","namespace":"bench","uid":"{}","resourceVersion":"{}","labels":{{"kubernetes.io/service-name":"service-{number:05}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}},"managedFields":[{}]}},"addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"http","port":8080,"protocol":"TCP"}}]}}"#,
        uid(number),
        200_000 + number,
        managed_fields(),
        endpoints.join(",")
    )
}

fn node(_: &Scenario, number: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"node-{number:03}","resourceVersion":"{}","labels":{{"kubernetes.io/hostname":"node-{number:03}","topology.kubernetes.io/zone":"rack-{}"}}}},"status":{{"addresses":[{{"type":"InternalIP","address":"10.0.1.{number}"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#,
        300_000 + number,
        number % 4
    )
}

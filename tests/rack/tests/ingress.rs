//! An ingress controller and a Gateway behind a Service of type LoadBalancer, from a client that knows a host name and its address
//! to the backend that the name belongs to. Controller, kube-proxy and API server are real.

use std::net::{IpAddr, Ipv4Addr};

use rack::client::Answer;
use rack::crier::Crier;
use rack::traefik::Role;
use rack::{Metal, Need, Pod, Rack, Service, eventually, eventually_equal, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 3] = [Need::Kubernetes, Need::Traefik, Need::Crier];

const LAN: &str = r#"
[pulse]
unauthenticated = true
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110", "fd35::100-fd35::110"]
[[pool]]
name = "edge"
addresses = ["192.168.35.120/32"]
auto-assign = false
[[l2]]
interfaces = ["eth0"]
service-selector = "tier=front"
"#;

/// Two nodes with agents, and on each a pod of one of the backends.
struct Scene {
    metal: Metal,
    _agents: Vec<Crier>,
    _pods: [Pod; 2],
}

impl Scene {
    #[track_caller]
    fn new(rack: &Rack) -> Scene {
        let metal = Metal::new(rack, 2);
        let pods = [metal.pod(0, "shop-1", "shop", &[8080]), metal.pod(1, "blog-1", "blog", &[8080])];
        for name in ["shop", "blog"] {
            let service = Service::new(name).selects(name).ports(&[(80, 8080)]).spec("type", "ClusterIP");
            metal.try_apply(&service.object()).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        }
        let agents = metal.agents(LAN);
        Scene { metal, _agents: agents, _pods: pods }
    }

    /// Asks for the host at the address until `judge` is content.
    #[track_caller]
    fn eventually_answers(&self, what: &str, address: IpAddr, host: &str, judge: impl Fn(&Answer) -> bool) {
        eventually(what, secs(30), || {
            let answer = self.metal.site.client.get_host((address, 80), host).map_err(|error| error.to_string())?;
            if judge(&answer) { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }

    /// Each host name leads to its backend, and another one to none.
    #[track_caller]
    fn serves_by_host(&self, address: IpAddr) {
        for (host, pod) in [("shop.rack.test", "shop-1"), ("blog.rack.test", "blog-1")] {
            let what = format!("{host} at {address} is answered by {pod}");
            self.eventually_answers(&what, address, host, |answer| answer.status == 200 && answer.name == pod);
        }
        let answer = self.metal.site.client.get_host((address, 80), "other.rack.test").expect("the controller answers");
        assert_eq!((answer.status, &*answer.name), (404, ""), "a host that nobody asked to serve: {answer:?}");
    }

    /// Only the node of that name answers for the address.
    #[track_caller]
    fn owner_is(&self, address: Ipv4Addr, node: &str) {
        let what = format!("{node} alone answers for {address}");
        eventually_equal(&what, secs(30), &vec![node.to_owned()], || self.metal.site.answering(address));
    }
}

/// The Service in front of the controller.
fn front() -> Value {
    let mut service = Service::new("front").families(&["IPv4", "IPv6"]).selects("front").object();
    service["metadata"]["labels"] = json!({ "tier": "front" });
    service["metadata"]["annotations"] = json!({ "crier.dev/node": "node-1" });
    service
}

fn ingress() -> Value {
    let rule = |name: &str| {
        let backend = json!({ "service": { "name": name, "port": { "number": 80 } } });
        json!({
            "host": format!("{name}.rack.test"),
            "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] },
        })
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "sites" },
        "spec": { "ingressClassName": "traefik", "rules": [rule("shop"), rule("blog")] },
    })
}

#[test]
fn an_ingress_leads_each_host_name_to_its_backend_and_keeps_the_clients_address_under_policy_local() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let metal = &scene.metal;
    metal.apply(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: { name: traefik }\nspec: { controller: traefik.io/ingress-controller }",
    );
    for object in [front(), ingress()] {
        metal.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}\n{object:#}"));
    }
    let labels = json!({ "app": "front" });
    let _second = metal.traefik(1, "front-2", &labels, Role::Ingresses, "front");

    let addresses: [IpAddr; 2] = [Ipv4Addr::new(192, 168, 35, 100).into(), "fd35::100".parse().unwrap()];
    let shown = addresses.map(|address| address.to_string()).to_vec();
    eventually_equal("the Service has an address of each family", secs(30), &shown, || metal.ingress("service/front"));
    eventually_equal("the Ingress shows the addresses of the Service", secs(30), &shown, || {
        metal.ingress("ingress/sites")
    });
    addresses.iter().for_each(|address| scene.serves_by_host(*address));

    // Under policy Cluster node-1 answers on the link and kube-proxy leads on to node-2, where the controller is.
    let Pod { address: pod, address6: pod6, .. } = &_second;
    assert!(metal.site.client.get((IpAddr::from(*pod), 80)).is_err(), "no way leads to {pod} past kube-proxy");
    assert!(metal.site.client.get((IpAddr::from(*pod6), 80)).is_err(), "no way leads to {pod6} past kube-proxy");
    let IpAddr::V4(address) = addresses[0] else { unreachable!("the first is IPv4") };
    scene.owner_is(address, "node-1");
    let own = [IpAddr::from(metal.site.client.address), metal.site.client.address6.into()];
    for (address, own) in addresses.into_iter().zip(own) {
        let what = "under policy Cluster the controller sees a node and not the client";
        scene.eventually_answers(what, address, "shop.rack.test", |answer| {
            answer.name == "shop-1" && answer.forwarded_for.is_some_and(|seen| seen != own)
        });
    }

    metal.patch("service/front", &json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    scene.owner_is(address, "node-2");
    for (address, own) in addresses.into_iter().zip(own) {
        let what = format!("the backend is told of the client {own} at {address}");
        scene.eventually_answers(&what, address, "shop.rack.test", |answer| {
            answer.name == "shop-1" && answer.forwarded_for == Some(own)
        });
        scene.serves_by_host(address);
    }

    // The addresses follow the controller to another node.
    let _first = metal.traefik(0, "front-1", &labels, Role::Ingresses, "front");
    metal.set_pod_ready("front-2", false);
    scene.owner_is(address, "node-1");
    for (address, own) in addresses.into_iter().zip(own) {
        let what = format!("the controller on the other node is told of the client {own} at {address}");
        scene.eventually_answers(&what, address, "blog.rack.test", |answer| {
            answer.name == "blog-1" && answer.forwarded_for == Some(own)
        });
    }
    assert_eq!(metal.ingress("ingress/sites"), shown, "the Ingress shows the same addresses all the time");
}

/// A Gateway whose Service shall have what is in `annotations`.
fn gateway(annotations: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": "front" },
        "spec": {
            "gatewayClassName": "traefik",
            "infrastructure": { "annotations": annotations, "labels": { "tier": "front" } },
            "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
        },
    })
}

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": name },
        "spec": {
            "parentRefs": [{ "name": "front" }], "hostnames": [format!("{name}.rack.test")],
            "rules": [{ "backendRefs": [{ "name": name, "port": 80 }] }],
        },
    })
}

/// The Service that controllers make of a Gateway: named `NAME-CLASS`, owned by the Gateway, with the label that names it and with
/// the annotations and labels of its `spec.infrastructure`. Traefik makes none, so the test does what others' code does.
fn service_of(gateway: &Value) -> Value {
    let (name, infrastructure) =
        (gateway["metadata"]["name"].as_str().unwrap_or_default(), &gateway["spec"]["infrastructure"]);
    let named = json!({ "gateway.networking.k8s.io/gateway-name": name });
    let mut labels = infrastructure["labels"].clone();
    labels.as_object_mut().expect("a test's Gateway has labels").extend(named.as_object().cloned().unwrap_or_default());
    let full_name = format!("{name}-{}", gateway["spec"]["gatewayClassName"].as_str().unwrap_or_default());
    let mut service = Service::new(&full_name).spec("selector", named).object();
    service["metadata"]["labels"] = labels;
    service["metadata"]["annotations"] = infrastructure["annotations"].clone();
    service["metadata"]["ownerReferences"] = json!([{
        "apiVersion": gateway["apiVersion"], "kind": gateway["kind"], "name": name, "uid": gateway["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    service
}

/// The addresses in a Gateway's status, once it is programmed.
fn gateway_addresses(metal: &Metal) -> Vec<String> {
    let status = metal.get("gateway/front").unwrap_or_default()["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let is_programmed =
        conditions.iter().any(|condition| condition["type"] == "Programmed" && condition["status"] == "True");
    let addresses = status["addresses"].as_array().filter(|_| is_programmed).cloned().unwrap_or_default();
    addresses.iter().filter_map(|address| Some(address["value"].as_str()?.to_owned())).collect()
}

#[test]
fn a_gateway_leads_each_host_name_to_its_backend_at_an_address_of_the_pool_that_it_names() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let metal = &scene.metal;
    metal.install_gateway_api();
    metal.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: { name: traefik }\nspec: { controllerName: traefik.io/gateway-controller }",
    );
    let apply = |object: &Value| metal.try_apply(object).unwrap_or_else(|refusal| panic!("{refusal}\n{object:#}"));
    let made = apply(&gateway(&json!({ "crier.dev/pool": "edge" })));
    for name in ["shop", "blog"] {
        apply(&route(name));
    }
    apply(&service_of(&made));
    let labels = json!({ "gateway.networking.k8s.io/gateway-name": "front" });
    let _controller = metal.traefik(0, "front-1", &labels, Role::Gateways, "front-traefik");

    let shows = |what: &str, address: &str| {
        let wanted = vec![address.to_owned()];
        eventually_equal(what, secs(30), &wanted, || metal.ingress("service/front-traefik"));
        eventually_equal("the Gateway shows the address of its Service", secs(30), &wanted, || {
            gateway_addresses(metal)
        });
        scene.serves_by_host(address.parse().expect("an address"));
    };
    shows("the pool of the Gateway's annotations gives the address", "192.168.35.120");
    let service = metal.get("service/front-traefik").expect("the Service is there");
    let metadata = &service["metadata"];
    assert_eq!(metadata["annotations"]["crier.dev/ip-allocated-from-pool"], "edge", "{metadata:#}");
    assert_eq!(metadata["annotations"]["crier.dev/pool"], "edge", "{metadata:#}");
    assert_eq!(
        metadata["ownerReferences"][0]["uid"], made["metadata"]["uid"],
        "it is still the Gateway's: {metadata:#}"
    );

    // A controller that removes what it did not write is not fought, and costs the Service nothing.
    let gone = json!({ "crier.dev/ip-allocated-from-pool": null, "metallb.io/ip-allocated-from-pool": null });
    let stripped = metal.patch("service/front-traefik", &json!({ "metadata": { "annotations": gone } }));
    throughout("the Service stays as its controller wrote it, with its address", secs(2), || {
        let now = metal.get("service/front-traefik").unwrap_or_default();
        if now == stripped { Ok(()) } else { Err(format!("{now:#}")) }
    });
    assert_eq!(metal.ingress("service/front-traefik"), ["192.168.35.120"]);

    // Another address in the Gateway is another request, which its controller copies to the Service.
    apply(&service_of(&apply(&gateway(&json!({ "crier.dev/addresses": "192.168.35.107" })))));
    shows("the address in the Gateway's annotations", "192.168.35.107");
    eventually("nobody answers for the former address", secs(30), || {
        match &*metal.site.answering(Ipv4Addr::new(192, 168, 35, 120)) {
            [] => Ok(()),
            answering => Err(format!("{answering:?}")),
        }
    });
}

//! Which sockets are opened with whose keys, and what a real kernel makes of it on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;
use crate::address::ScopedAddress;
use crate::config::{AoAlgorithm, AoKey, SecretFile};
use crate::secret::Secret;

fn md5(password: &str) -> Protection {
    Protection::Md5(Secret::from(password.as_bytes()))
}

fn endpoint(peer: &str, protection: Protection) -> Endpoint {
    Endpoint {
        peer: ScopedAddress { ip: peer.parse().unwrap(), interface: None },
        port: 179,
        source: None,
        ttl: 1,
        link_only: false,
        device: None,
        protection,
    }
}

fn from(source: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint { source: Some(source.parse().unwrap()), ..endpoint }
}

fn arranged(addresses: &[&str], routes: &[Endpoint]) -> Vec<String> {
    let listen = Listen { addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), port: 179 };
    let line = |(spot, keys): (Spot, BTreeMap<IpAddr, Protection>)| {
        let device = spot.device.map(|device| format!("%{device}")).unwrap_or_default();
        let key = |(ip, protection): (IpAddr, Protection)| match protection {
            Protection::Md5(password) => format!(" {ip}={}", String::from_utf8_lossy(password.expose())),
            Protection::None | Protection::Ao(_) => format!(" {ip}={protection}"),
        };
        format!("{}{device}:{}", spot.ip, keys.into_iter().map(key).collect::<String>())
    };
    arrange(&listen, &routes.iter().collect::<Vec<_>>()).into_iter().map(line).collect()
}

#[test]
fn each_socket_has_the_keys_of_the_peers_of_its_family() {
    let peers = [endpoint("10.0.0.1", md5("a")), endpoint("10.0.0.2", Protection::None), endpoint("fd00::1", md5("b"))];
    assert_eq!(arranged(&["0.0.0.0", "::"], &peers), ["0.0.0.0: 10.0.0.1=a", "::: fd00::1=b"]);
    assert_eq!(arranged(&[], &peers), Vec::<String>::new(), "who only dials listens nowhere");
    let bound = from("10.0.0.9", endpoint("10.0.0.1", md5("a")));
    assert_eq!(arranged(&["10.0.0.9", "10.0.0.8"], &[bound]), ["10.0.0.8:", "10.0.0.9: 10.0.0.1=a"]);
}

#[test]
fn a_vrf_has_sockets_of_its_own() {
    let red = Endpoint { device: Some("red".into()), ..endpoint("10.0.0.1", md5("b")) };
    let peers = [endpoint("10.0.0.1", md5("a")), red];
    assert_eq!(arranged(&["0.0.0.0"], &peers), ["0.0.0.0: 10.0.0.1=a", "0.0.0.0%red: 10.0.0.1=b"]);
}

#[test]
fn peers_of_one_address_with_different_keys_get_a_socket_at_their_source_address_each() {
    let peers = [
        from("10.0.0.8", endpoint("10.0.0.1", md5("a"))),
        from("10.0.0.9", endpoint("10.0.0.1", md5("b"))),
        from("10.0.0.9", endpoint("10.0.0.2", md5("c"))),
    ];
    let expected = ["0.0.0.0: 10.0.0.1=a 10.0.0.2=c", "10.0.0.8: 10.0.0.1=a", "10.0.0.9: 10.0.0.1=b 10.0.0.2=c"];
    assert_eq!(arranged(&["0.0.0.0"], &peers), expected);
    let same = peers.map(|peer| Endpoint { protection: md5("x"), ..peer });
    assert_eq!(arranged(&["0.0.0.0"], &same), ["0.0.0.0: 10.0.0.1=x 10.0.0.2=x"], "with one key one socket does");
    let open = [endpoint("10.0.0.1", Protection::None), from("10.0.0.9", endpoint("10.0.0.1", md5("b")))];
    assert_eq!(arranged(&["0.0.0.0"], &open), ["0.0.0.0:", "10.0.0.9: 10.0.0.1=b"]);
}

#[test]
fn link_local_peers_of_one_address_get_a_socket_on_their_link_each() {
    let on = |link: &str, key| {
        let peer = ScopedAddress { ip: "fe80::1".parse().unwrap(), interface: Some(link.into()) };
        Endpoint { peer, ..endpoint("fe80::1", md5(key)) }
    };
    assert_eq!(
        arranged(&["::"], &[on("eth0", "a"), on("eth1", "b")]),
        ["::: fe80::1=a", "::%eth0: fe80::1=a", "::%eth1: fe80::1=b"]
    );
}

/// Listens on 127.0.0.1 for these peers. The answers of `follow` are to be empty.
fn listening(peers: &[(&str, Endpoint)]) -> (Listeners, SocketAddr) {
    let listen = Listen { addresses: vec!["127.0.0.1".parse().unwrap()], port: 0 };
    let mut listeners = Listeners::open(&listen).expect("a free port on loopback");
    assert_eq!(follow(&mut listeners, peers), []);
    let address = listeners.local_addresses()[0];
    (listeners, address)
}

fn follow(listeners: &mut Listeners, peers: &[(&str, Endpoint)]) -> Vec<(String, String)> {
    let named: Vec<(PeerName, &Endpoint)> =
        peers.iter().map(|(name, endpoint)| (PeerName::from(*name), endpoint)).collect();
    let news = listeners.follow(named.iter().map(|(name, endpoint)| (name, *endpoint)));
    news.into_iter().map(|(name, why)| (name.to_string(), why)).collect()
}

/// A SYN that is dropped is sent again after a second; one that is not is answered at once.
const SILENCE: Duration = Duration::from_millis(300);

async fn dial_within(patience: Duration, from: &str, to: SocketAddr, protection: Protection) -> Option<TcpStream> {
    let endpoint = Endpoint { port: to.port(), ..self::from(from, endpoint(&to.ip().to_string(), protection)) };
    tokio::time::timeout(patience, endpoint.dial()).await.ok()?.ok()
}

/// Nobody answers the dial.
async fn is_dropped(from: &str, to: SocketAddr, protection: Protection) -> bool {
    dial_within(SILENCE, from, to, protection).await.is_none()
}

/// Dials from one loopback address to another, however busy the machine is.
async fn dial(from: &str, to: SocketAddr, protection: Protection) -> Option<TcpStream> {
    dial_within(Duration::from_secs(10), from, to, protection).await
}

/// Input: the file of the password is missing. Output: the socket keeps the key that it has, so that what ends the session
/// is signed; an empty password took it off.
#[tokio::test]
async fn a_secret_that_is_missing_takes_no_key_off_a_socket() {
    let socket = TcpSocket::new_v4().expect("a socket");
    let peer = "127.0.0.2".parse().unwrap();
    md5("right").set(socket.as_fd(), peer, None, true).expect("the kernel has TCP MD5");
    let missing = md5("");
    assert!(missing.lacks_secret() && !md5("right").lacks_secret() && !Protection::None.lacks_secret());
    assert_eq!(missing.set(socket.as_fd(), peer, None, true).unwrap_err().to_string(), "the secret is missing");
    missing.unset(socket.as_fd(), peer, None).expect("there is nothing to do");
    md5("right").unset(socket.as_fd(), peer, None).expect("the key is still there");
}

#[tokio::test]
async fn x29_with_a_password_the_kernel_lets_in_who_has_the_same_and_nobody_else() {
    let longest = "x".repeat(crate::config::LONGEST_PASSWORD);
    let (listeners, address) = listening(&[
        ("a", endpoint("127.0.0.2", md5("right"))),
        ("b", endpoint("127.0.0.3", md5(&longest))),
        ("c", endpoint("127.0.0.4", Protection::None)),
    ]);
    assert!(is_dropped("127.0.0.2", address, md5("wrong")).await, "another password");
    assert!(is_dropped("127.0.0.2", address, Protection::None).await, "none there, one here");
    assert!(is_dropped("127.0.0.4", address, md5("right")).await, "one there, none here");
    for (from, protection) in
        [("127.0.0.2", md5("right")), ("127.0.0.3", md5(&longest)), ("127.0.0.4", Protection::None)]
    {
        let _dialled = dial(from, address, protection.clone()).await.expect(from);
        let arrival = listeners.accept().await.unwrap();
        assert_eq!(arrival.from.ip().to_string(), from, "and nobody else waits to be accepted");
        assert_eq!(arrival.signed, Ok(protection));
    }
}

#[tokio::test]
async fn x29_an_accepted_socket_keeps_the_key() {
    let (listeners, address) = listening(&[("a", endpoint("127.0.0.2", md5("right")))]);
    let mut dialled = dial("127.0.0.2", address, md5("right")).await.expect("the same password");
    let mut accepted = listeners.accept().await.unwrap().stream;
    dialled.write_all(b"signed").await.unwrap();
    let mut read = [0; 6];
    accepted.read_exact(&mut read).await.unwrap();
    // From here on the dialling end sends unsigned segments.
    md5("right").unset(dialled.as_fd(), address.ip(), None).unwrap();
    dialled.write_all(b"unsigned").await.unwrap();
    let heard = tokio::time::timeout(Duration::from_millis(300), accepted.read(&mut read)).await;
    assert!(heard.is_err(), "the kernel drops what is not signed: {heard:?}");
}

#[tokio::test]
async fn keys_follow_the_peers_as_they_come_change_and_go() {
    let peer = |key| [("a", endpoint("127.0.0.2", md5(key)))];
    let (mut listeners, address) = listening(&[]);
    assert!(dial("127.0.0.2", address, Protection::None).await.is_some());
    // The unsigned connection still waits to be accepted when the peer comes.
    assert_eq!(follow(&mut listeners, &peer("one")), []);
    let _first = dial("127.0.0.2", address, md5("one")).await.expect("signed as the peer is");
    let arrival = listeners.accept().await.unwrap();
    assert_eq!(arrival.signed, Ok(md5("one")));
    assert_eq!(arrival.mistrust(&endpoint("127.0.0.2", md5("one"))), None);
    let why = arrival.mistrust(&endpoint("127.0.0.2", Protection::None)).expect("it is signed");
    assert_eq!(why, "an accepted connection is signed with a TCP MD5 password, and the peer's are not signed");
    let nobody_else = tokio::time::timeout(Duration::from_millis(50), listeners.accept()).await;
    assert!(nobody_else.is_err(), "the connection of before the key was closed: {nobody_else:?}");

    assert_eq!(follow(&mut listeners, &peer("two")), []);
    assert!(is_dropped("127.0.0.2", address, md5("one")).await, "the old key");
    assert!(dial("127.0.0.2", address, md5("two")).await.is_some());
    assert_eq!(follow(&mut listeners, &[]), []);
    assert!(is_dropped("127.0.0.2", address, md5("two")).await, "the peer is gone, and its key");
    assert!(dial("127.0.0.2", address, Protection::None).await.is_some());
}

#[tokio::test]
async fn two_peers_of_one_address_are_told_apart_by_the_address_they_dial_and_have_keys_of_their_own() {
    let listen = Listen { addresses: vec!["0.0.0.0".parse().unwrap()], port: 0 };
    let mut listeners = Listeners::open(&listen).unwrap();
    let one = from("127.0.0.8", endpoint("127.0.0.2", md5("one")));
    let two = from("127.0.0.9", endpoint("127.0.0.2", md5("two")));
    assert_eq!(follow(&mut listeners, &[("one", one.clone()), ("two", two.clone())]), []);
    let port = listeners.listen.port;
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    assert!(is_dropped("127.0.0.2", at("127.0.0.9"), md5("one")).await, "the other's key");
    for (to, key, mine, other) in [("127.0.0.9", "two", &two, &one), ("127.0.0.8", "one", &one, &two)] {
        let _dialled = dial("127.0.0.2", at(to), md5(key)).await.expect(key);
        let arrival = listeners.accept().await.unwrap();
        assert!(arrival.is_of(mine) && !arrival.is_of(other), "{to}");
        assert_eq!(arrival.mistrust(mine), None);
    }
}

#[tokio::test]
async fn x30_with_ttl_security_a_connection_that_did_not_begin_on_the_link_is_not_taken() {
    let near = Endpoint { link_only: true, ..endpoint("127.0.0.2", Protection::None) };
    let (listeners, address) = listening(&[("near", near.clone())]);
    // 254 is what is left of 255 behind one router.
    for (ttl, trusted) in [(255, true), (254, false)] {
        let dialler =
            Endpoint { ttl, port: address.port(), ..from("127.0.0.2", endpoint("127.0.0.1", Protection::None)) };
        let mut dialled = dialler.dial().await.expect("the listening socket serves others too");
        let arrival = listeners.accept().await.unwrap();
        // Of two peers with one address each is asked for, and the kernel tells it once.
        for _ in 0..2 {
            assert_eq!(arrival.mistrust(&near).is_none(), trusted, "{:?}", arrival.mistrust(&near));
        }
        near.dress_accepted(&arrival.stream).unwrap();
        let mut accepted = arrival.stream;
        dialled.write_all(b"OPEN").await.unwrap();
        let mut read = [0; 4];
        let heard = tokio::time::timeout(Duration::from_millis(300), accepted.read_exact(&mut read)).await;
        assert_eq!(heard.is_ok(), trusted, "with TTL {ttl}");
    }
}

#[tokio::test]
async fn x30_the_answer_to_a_syn_leaves_with_255_so_that_a_peer_with_ttl_security_takes_it() {
    let (_listeners, address) = listening(&[("any", endpoint("127.0.0.2", Protection::None))]);
    let strict = |to: SocketAddr| Endpoint {
        port: to.port(),
        link_only: true,
        ..from("127.0.0.2", endpoint("127.0.0.1", Protection::None))
    };
    let dialled = tokio::time::timeout(Duration::from_secs(5), strict(address).dial()).await;
    dialled.expect("it does not time out").expect("it connects");
    // And an ordinary listener's answer, with the kernel's TTL, is not taken.
    let ordinary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = tokio::time::timeout(Duration::from_millis(300), strict(ordinary.local_addr().unwrap()).dial()).await;
    assert!(dialled.is_err(), "{dialled:?}");
}

#[tokio::test]
async fn an_address_that_is_not_there_is_listened_on_and_a_port_that_is_taken_is_named() {
    let listen = Listen { addresses: vec!["192.0.2.77".parse().unwrap(), "2001:db8::77".parse().unwrap()], port: 0 };
    let listeners = Listeners::open(&listen).expect("the addresses may come later");
    assert_eq!(listeners.local_addresses().len(), 2);
    let (_taken, address) = listening(&[]);
    let error = Listeners::open(&Listen { addresses: vec![address.ip()], port: address.port() }).unwrap_err();
    let text = error.to_string();
    let expected = format!(
        "cannot accept BGP connections on {address}: Address already in use (os error 98); does another BGP speaker run on this host?"
    );
    assert_eq!(text, expected);
}

/// D10 of the field cases.
#[tokio::test]
async fn a_port_that_is_taken_is_a_problem_with_a_remedy_and_is_listened_on_once_it_is_free() {
    let (taken, address) = listening(&[]);
    let free = Listen { addresses: vec![address.ip()], port: address.port() };
    let mut listeners = Listeners::open_what_can_be(&free);
    assert_eq!(listeners.local_addresses(), []);
    let [problem] = listeners.problems().try_into().expect("one problem");
    assert!(problem.problem.starts_with(&format!("cannot accept BGP connections on {address}")), "{problem}");
    assert!(problem.remedy.contains("listen = []"), "{problem}");
    assert!(listeners.wants_another_look());
    follow(&mut listeners, &[]);
    assert_eq!(listeners.problems().len(), 1, "it is taken still");
    drop(taken);
    follow(&mut listeners, &[]);
    assert_eq!((listeners.local_addresses(), listeners.problems()), (vec![address], vec![]));
    assert!(!listeners.wants_another_look());
}

#[test]
fn only_a_family_that_the_kernel_does_not_know_is_passed_over_and_only_where_all_addresses_were_meant() {
    let error = |ip: &str, code| ListenError {
        address: SocketAddr::new(ip.parse().unwrap(), 179),
        device: None,
        source: io::Error::from_raw_os_error(code),
        hint: "",
    };
    assert!(error("::", libc::EAFNOSUPPORT).is_missing_family());
    assert!(!error("2001:db8::1", libc::EAFNOSUPPORT).is_missing_family());
    assert!(!error("::", libc::EADDRINUSE).is_missing_family());
}

/// D16 of the field cases.
#[tokio::test]
async fn a_flood_on_one_listening_socket_keeps_nobody_from_another() {
    let addresses = ["127.0.0.1", "127.0.0.3"].map(|ip| ip.parse().unwrap()).to_vec();
    let (once, address) = listening(&[]);
    drop(once);
    let listeners = Listeners::open(&Listen { addresses, port: address.port() }).unwrap();
    let to = |ip: &str| SocketAddr::new(ip.parse().unwrap(), address.port());
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(to("127.0.0.1")).await.unwrap());
    }
    let _other = TcpStream::connect(to("127.0.0.3")).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(listeners.accept().await.unwrap().local);
    }
    assert!(heard.contains(&"127.0.0.3".parse().unwrap()), "{heard:?}");
}

#[tokio::test]
async fn a_device_that_is_not_there_is_told_once_and_looked_for_again() {
    let (mut listeners, _) = listening(&[]);
    assert!(!listeners.wants_another_look());
    let red = Endpoint { device: Some("red0".into()), ..endpoint("127.0.0.2", Protection::None) };
    let why = "cannot accept BGP connections on 127.0.0.1:PORT in red0: there is no interface red0";
    let why = why.replace("PORT", &listeners.listen.port.to_string());
    assert_eq!(follow(&mut listeners, &[("red", red.clone())]), [("red".to_owned(), why)]);
    assert!(listeners.wants_another_look());
    assert_eq!(follow(&mut listeners, &[("red", red.clone())]), [], "no news");
    assert_eq!(red.dial().await.unwrap_err().to_string(), "there is no interface red0");
    assert_eq!(follow(&mut listeners, &[]), []);
    assert!(!listeners.wants_another_look());
}

#[tokio::test]
async fn without_tcp_ao_in_the_kernel_such_a_peer_is_neither_dialled_nor_heard() {
    let secret = SecretFile { path: None, secret: Secret::from(&b"key"[..]) };
    let key = AoKey { send_id: 1, receive_id: 1, algorithm: AoAlgorithm::HmacSha1, secret };
    let signed = endpoint("127.0.0.2", Protection::Ao(vec![key]));
    let listen = Listen { addresses: vec!["127.0.0.1".parse().unwrap()], port: 0 };
    let mut listeners = Listeners::open(&listen).unwrap();
    let address = listeners.local_addresses()[0];
    let news = follow(&mut listeners, &[("a", signed.clone())]);
    let dialled = signed.dial().await;
    if news.is_empty() {
        // A kernel that can: then the dial gets as far as finding nobody there.
        assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        return;
    }
    let why = "this kernel has no TCP-AO: it takes Linux 6.7 or later with CONFIG_TCP_AO";
    assert_eq!(news, [("a".to_owned(), why.to_owned())]);
    assert_eq!(dialled.unwrap_err().to_string(), why);
    let _unsigned = dial("127.0.0.2", address, Protection::None).await.expect("the kernel knows of no key");
    let arrival = listeners.accept().await.unwrap();
    assert!(arrival.is_of(&signed));
    assert_eq!(arrival.mistrust(&signed).as_deref(), Some(why), "so it is refused here");
}

//! The texts of the configuration that mean one thing on their own: paths, names, interfaces, addresses, selectors.
//! Floor 1. What a text has to do with other texts is judged by the readers of the sections.

use std::net::IpAddr;
use std::path::PathBuf;

use super::complaint::Problem;
use super::shape::written;
use super::{InterfacePattern, nearest};
use crate::address::mapped_v4;
use crate::names::{InterfaceName, NamespaceName, ObjectKey};
use crate::selector::{Selector, check_label_key, is_dns_label, is_dns_name};

/// Relative paths would depend on where the agent was started.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Problem> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(Problem::new(format!("{} is not an absolute path", written(text)), "start the path with /"))
    }
}

/// The name of a Unix socket must fit into `sockaddr_un`, whose 108 bytes end with a zero.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Problem> {
    const MOST: usize = 107;
    if text.len() > MOST {
        let message = format!("the path has {} bytes; a socket path can have at most {MOST}", text.len());
        return Err(Problem::new(message, "use a directory with a shorter path"));
    }
    absolute_path(text)
}

/// The name of a pool, peer or Node.
pub(super) fn name(text: &str) -> Result<&str, Problem> {
    if is_dns_name(text) {
        return Ok(text);
    }
    let message = format!("{} is not a valid name", written(text));
    Err(Problem::new(message, "use lower-case letters, digits, - and .; start and end with a letter or digit"))
}

pub(super) fn namespace(text: &str) -> Result<NamespaceName, Problem> {
    if is_dns_label(text) {
        return Ok(text.into());
    }
    let message = format!("{} is not a valid namespace name", written(text));
    Err(Problem::new(message, "use at most 63 lower-case letters, digits and -; start and end with a letter or digit"))
}

pub(super) fn lease(text: &str) -> Result<ObjectKey, Problem> {
    in_namespace(text).ok_or_else(|| no_name(text, "Lease", "kube-system/crier"))
}

/// `namespace/name` of an object.
pub fn in_namespace(text: &str) -> Option<ObjectKey> {
    let (namespace, name) = text.split_once('/')?;
    (is_dns_label(namespace) && is_dns_name(name)).then(|| ObjectKey::new(namespace, name))
}

fn no_name(text: &str, of: &str, example: &str) -> Problem {
    Problem::new(
        format!("{} is not the name of a {of}", written(text)),
        format!("write namespace and name: \"{example}\""),
    )
}

/// An API server by its URL, without a path.
pub(super) fn server(text: &str) -> Result<String, Problem> {
    let uri = text.parse::<http::Uri>().ok();
    let plain = |uri: &http::Uri| uri.host().is_some_and(|host| !host.is_empty()) && matches!(uri.path(), "" | "/");
    match uri {
        Some(uri) if uri.scheme_str() == Some("https") && plain(&uri) && uri.query().is_none() => Ok(text.to_owned()),
        Some(_) | None => Err(Problem::new(
            format!("{} is not the URL of an API server", written(text)),
            "write https, a host or an address, and the port: \"https://192.0.2.11:6443\"",
        )),
    }
}

pub(super) fn config_map(text: &str) -> Result<ObjectKey, Problem> {
    in_namespace(text).ok_or_else(|| no_name(text, "ConfigMap", "kube-system/crier"))
}

/// The name of a Service: its namespace is said, because nothing else says it here. It is a label, without dots.
pub(super) fn service(text: &str) -> Result<ObjectKey, Problem> {
    let key = in_namespace(text).filter(|key| is_dns_label(&key.name));
    key.ok_or_else(|| no_name(text, "Service", "shop/front"))
}

pub(super) fn class(text: &str) -> Result<String, Problem> {
    check_label_key(text).map(|()| text.to_owned()).map_err(|error| {
        let hint = "write it as in spec.loadBalancerClass: a name, optionally after a DNS name and a slash";
        Problem::new(format!("{} is not a load balancer class: {error}", written(text)), hint)
    })
}

/// What Linux takes as the name of an interface (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Result<InterfaceName, Problem> {
    if is_interface_part(text) && text != "." && text != ".." {
        return Ok(text.into());
    }
    let hint = "an interface name has 1 to 15 characters, no slash, no colon and no space";
    Err(Problem::new(format!("{} is not an interface name", written(text)), hint))
}

/// An interface name, or the beginning of one with a `*` behind.
pub(super) fn interface_pattern(text: &str) -> Result<InterfacePattern, Problem> {
    match text.strip_suffix('*') {
        Some("") => Ok(InterfacePattern::StartsWith(String::new())),
        Some(start) if is_interface_part(start) && !start.contains('*') => {
            Ok(InterfacePattern::StartsWith(start.to_owned()))
        }
        None if !text.contains('*') => interface(text).map(InterfacePattern::Exact),
        _ => Err(Problem::new(
            format!("{} is neither an interface name nor a pattern", written(text)),
            "use * only at the end: \"bond*\"",
        )),
    }
}

fn is_interface_part(text: &str) -> bool {
    let stays_out = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    (1..=15).contains(&text.len()) && !text.contains(stays_out)
}

/// The part of the text that is wrong is pointed at.
pub(super) fn selector(text: &str) -> Result<Selector, Problem> {
    text.parse::<Selector>().map_err(|error| Problem {
        hint: Some(error.hint().to_owned()),
        message: format!("this is not a label selector: {error}"),
        part: Some(error.span),
    })
}

pub(super) fn ip(text: &str) -> Result<IpAddr, Problem> {
    let ip = text.parse().map_err(|_| {
        let hint = "write an address without prefix length or port: \"10.0.0.1\" or \"fd35::1\"";
        Problem::new(format!("{} is not an IP address", written(text)), hint)
    })?;
    not_mapped(ip)?;
    Ok(ip)
}

/// No packet on a wire has an IPv4-mapped address: it is IPv4 to the kernel, and IPv6 to whoever reads it.
pub(super) fn not_mapped(ip: IpAddr) -> Result<(), Problem> {
    match mapped_v4(ip) {
        Some(v4) => Err(Problem::new(format!("{ip} is IPv4 written as IPv6"), format!("write \"{v4}\""))),
        None => Ok(()),
    }
}

/// A packet can be sent to it, and to one host alone.
pub(super) fn is_unicast(ip: IpAddr) -> bool {
    let nobody = match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    !nobody && !ip.is_multicast()
}

/// The text is none of the words, and perhaps close to one of them.
pub(super) fn no_such_word(what: &str, text: &str, words: &[&str]) -> Problem {
    Problem::new(format!("{} is not a valid {what}", written(text)), suggestion(text, words, what))
}

/// `did you mean "lan"?`, or else all that there is.
pub(super) fn suggestion(text: &str, known: &[&str], what: &str) -> String {
    match nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean {}?", written(near)),
        None if known.is_empty() => format!("the configuration has no {what}"),
        None => {
            let known: Vec<String> = known.iter().map(|word| written(word)).collect();
            format!("known: {}", known.join(", "))
        }
    }
}

/// A filter for log lines: `info`, or `info,crier::bgp=debug`.
pub(super) fn log_filter(text: &str) -> Result<String, Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mut start = 0;
    for directive in text.split(',') {
        let (target, level) = directive.rsplit_once('=').map_or((None, directive), |(t, level)| (Some(t), level));
        let good_target = target.is_none_or(|target| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
        });
        let level_start = start + directive.len() - level.len();
        if !good_target {
            let hint = "write levels or module=level, separated by commas: \"info,crier::bgp=debug\"";
            let part = Some(start..start + directive.len());
            return Err(Problem { part, ..Problem::new(format!("{} is not a log filter", written(directive)), hint) });
        }
        if !LEVELS.contains(&level) {
            let part = Some(level_start..level_start + level.len());
            return Err(Problem { part, ..no_such_word("log level", level, &LEVELS) });
        }
        start += directive.len() + 1;
    }
    Ok(text.to_owned())
}

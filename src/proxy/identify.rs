//! Step 2: whose call it is and which template it wants. Everything of Chaperone's own leaves here.
//!
//! Each fact is taken from the first place that has it: path prefix, headers, body, route rule.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::Proxy;
use super::arrive::{Arrived, Head, malformed};
use super::exchange::Exchange;
use super::headers::{CONVERSATION, TEMPLATE, TENANT, USER, VARIABLES, own};
use super::refusal::{Kind, Refusal};
use crate::catalog::{self, Catalog, TenantCatalog};
use crate::config::{RouteRule, VariableSource};
use crate::experiment::UNIT_BYTES_MAX;
use crate::gemini::json::{self, walk};
use crate::gemini::members::Members;
use crate::gemini::route::Call;
use crate::words::ids::Tenant;

/// The member of a body that is ours.
const BODY_MEMBER: &str = "chaperone";

/// The parameter by which an address for the rest of an upload names its tenant: whoever follows it sends none of
/// our headers.
pub(super) const TENANT_PARAMETER: &str = "chaperone_tenant";

/// A call with everything it says about itself.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) arrived: Arrived,
    pub(super) tenant: Arc<TenantCatalog>,
    pub(super) template: Option<TemplateRef>,
    pub(super) variables: Map<String, Value>,
    pub(super) user: Option<String>,
    pub(super) conversation: Option<String>,
}

/// A template asked for by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TemplateRef {
    pub(super) name: String,
    pub(super) version: Option<u32>,
}

/// The `chaperone` object of a body.
#[derive(Debug, Default)]
struct InBody {
    template: Option<String>,
    variables: Option<Map<String, Value>>,
    user: Option<String>,
    conversation: Option<String>,
    tenant: Option<String>,
}

pub(super) fn identify(
    proxy: &Proxy,
    mut arrived: Arrived,
    exchange: &mut Exchange,
) -> Result<Identified, Refusal> {
    let in_body = take_from_body(&mut arrived.body)?;
    let head = &arrived.head;
    if matches!(head.route.call, Call::Read(..)) && arrived.body.as_ref() == b"{}" {
        // What a client put there for us was all of it.
        arrived.body = Bytes::new();
    }
    let rule = proxy.rules.routes.iter().find(|rule| matches(rule, head));
    let text = |name: &HeaderName| own(&head.headers, name).map(|text| text.map(str::to_owned));
    let tenant = tenant(text(&TENANT)?.or(in_body.tenant), rule);
    let tenant_catalog = tenant_of(&arrived.catalog, &tenant)?;
    let named = match &head.prefix {
        Some(prefix) => Some(decoded(prefix)?),
        None => text(&TEMPLATE)?.or(in_body.template),
    };
    let takes_template = head.route.call.takes_template();
    if !takes_template {
        check_prefix(&arrived.catalog, head)?;
    }
    let template = match (named, rule) {
        _ if !takes_template => None,
        (Some(named), _) => Some(TemplateRef::read(&named)?),
        (None, Some(rule)) => {
            Some(TemplateRef { name: rule.template.clone(), version: rule.version })
        }
        (None, None) => None,
    };
    let variables = match own(&head.headers, &VARIABLES)? {
        _ if !takes_template => Map::new(),
        Some(header) => from_header(header)?,
        None => in_body
            .variables
            .unwrap_or_else(|| rule.map(|rule| from_rule(rule, head)).unwrap_or_default()),
    };
    let user = bounded("user", text(&USER)?.or(in_body.user))?;
    let conversation = bounded("conversation", text(&CONVERSATION)?.or(in_body.conversation))?;
    exchange.note(|execution| {
        execution.tenant_id = tenant;
        execution.user_id.clone_from(&user);
        execution.conversation_id.clone_from(&conversation);
        execution.template_name = template.as_ref().map(|template| short(&template.name));
    });
    Ok(Identified { arrived, tenant: tenant_catalog, template, variables, user, conversation })
}

/// Whose a call is that nobody reads: a file, a session.
pub(super) fn identify_unread(
    proxy: &Proxy,
    head: &Head,
    catalog: &Catalog,
    exchange: &mut Exchange,
) -> Result<Arc<TenantCatalog>, Refusal> {
    let rule = proxy.rules.routes.iter().find(|rule| matches(rule, head));
    let tenant = tenant(head.tenant.clone(), rule);
    let tenant_catalog = tenant_of(catalog, &tenant)?;
    let user = bounded("user", own(&head.headers, &USER)?.map(str::to_owned))?;
    exchange.note(|execution| {
        execution.tenant_id = tenant;
        execution.user_id = user;
    });
    Ok(tenant_catalog)
}

/// The tenant a call names, or that of its route rule.
fn tenant(named: Option<String>, rule: Option<&RouteRule>) -> Tenant {
    named
        .or_else(|| rule.and_then(|rule| rule.tenant.clone()))
        .map_or_else(Tenant::default, |name| Tenant(name.into()))
}

/// The tenant named in the head of a call: by a header, or by a parameter, which is taken out.
pub(super) fn take_tenant(
    headers: &HeaderMap,
    query: &mut Option<String>,
) -> Result<Option<String>, Refusal> {
    let mut of_address = None;
    if query.as_deref().is_some_and(|query| query.contains(TENANT_PARAMETER)) {
        let pairs = query.take().unwrap_or_default();
        let is_ours =
            |pair: &&str| pair.split_once('=').is_some_and(|one| one.0 == TENANT_PARAMETER);
        let (ours, others): (Vec<&str>, Vec<&str>) = pairs.split('&').partition(is_ours);
        *query = (!others.is_empty()).then(|| others.join("&"));
        let name = ours.first().and_then(|pair| pair.split_once('='));
        of_address = name.map(|(_, name)| decoded(name)).transpose()?;
    }
    Ok(own(headers, &TENANT)?.map(str::to_owned).or(of_address))
}

fn bounded(what: &str, unit: Option<String>) -> Result<Option<String>, Refusal> {
    match unit {
        Some(unit) if unit.len() > UNIT_BYTES_MAX => {
            let message = format!("the {what} is longer than {UNIT_BYTES_MAX} bytes");
            Err(Refusal::new(Kind::BadRequest, message))
        }
        Some(unit) if unit.contains('\0') => {
            let message = format!("the {what} holds U+0000, which cannot be stored");
            Err(Refusal::new(Kind::BadRequest, message))
        }
        unit => Ok(unit.filter(|unit| !unit.is_empty())),
    }
}

/// Takes the `chaperone` object out of the body; a body without one keeps its bytes.
fn take_from_body(body: &mut Bytes) -> Result<InBody, Refusal> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    if !text.contains(BODY_MEMBER) {
        return Ok(InBody::default());
    }
    // Before anything is taken out: what is left must not hold a second one.
    walk(text, |_, _, _| {}).map_err(|error| malformed(&error))?;
    let Some(mut members) = Members::parse(text) else { return Ok(InBody::default()) };
    let Some(raw) = members.remove(BODY_MEMBER) else { return Ok(InBody::default()) };
    let in_body = InBody::read(&raw)?;
    let rest = members.to_json();
    *body = rest.into();
    Ok(in_body)
}

/// The body of a call that nobody reads, without the `chaperone` object that a client configured for all of its
/// calls puts into this one too. What is no JSON object stays as it is.
pub(super) fn without_ours(body: Bytes) -> Bytes {
    let text = std::str::from_utf8(&body).unwrap_or_default();
    if !text.contains(BODY_MEMBER) || json::check(&body).is_err() {
        return body;
    }
    let Some(mut members) = Members::parse(text) else { return body };
    let mut is_changed = false;
    while members.remove(BODY_MEMBER).is_some() {
        is_changed = true;
    }
    match members.to_json() {
        rest if is_changed && rest == "{}" => Bytes::new(),
        rest if is_changed => rest.into(),
        _ => body,
    }
}

impl InBody {
    /// Reads the object. Messages name members and types, never what they hold.
    fn read(raw: &str) -> Result<Self, Refusal> {
        let refuse = |what: &str| {
            let message = format!(
                "the body's chaperone member {what}; it is an object of template, user, conversation, \
                 tenant (strings) and variables (an object)"
            );
            Refusal::new(Kind::Malformed, message)
        };
        let Ok(Value::Object(members)) = serde_json::from_str(raw) else {
            return Err(refuse("is no object"));
        };
        let mut read = Self::default();
        for (name, value) in members {
            let slot = match (name.as_str(), value) {
                (_, Value::Null) => continue,
                ("variables", Value::Object(variables)) => {
                    read.variables = Some(variables);
                    continue;
                }
                ("template", Value::String(text)) => (&mut read.template, text),
                ("user", Value::String(text)) => (&mut read.user, text),
                ("conversation", Value::String(text)) => (&mut read.conversation, text),
                ("tenant", Value::String(text)) => (&mut read.tenant, text),
                ("variables" | "template" | "user" | "conversation" | "tenant", _) => {
                    return Err(refuse(&format!("holds a {name} of another type")));
                }
                _ => return Err(refuse(&format!("holds the unknown {:?}", short(&name)))),
            };
            *slot.0 = Some(slot.1).filter(|text| !text.is_empty());
        }
        Ok(read)
    }
}

/// What a tenant has in force.
fn tenant_of(catalog: &Catalog, tenant: &Tenant) -> Result<Arc<TenantCatalog>, Refusal> {
    catalog.tenant(tenant).cloned().ok_or_else(|| {
        let name = short(&tenant.to_string());
        Refusal::new(Kind::NotFound, format!("there is no tenant {name:?}"))
    })
}

/// A base URL with a template prefix serves other calls too, but not under a name that does not exist.
pub(super) fn check_prefix(catalog: &Catalog, head: &Head) -> Result<(), Refusal> {
    let Some(prefix) = &head.prefix else { return Ok(()) };
    let tenant =
        tenant(own(&head.headers, &TENANT)?.map(str::to_owned).or(head.tenant.clone()), None);
    let name = TemplateRef::read(&decoded(prefix)?)?.name;
    match tenant_of(catalog, &tenant)?.template(&name) {
        Some(_) => Ok(()),
        None => {
            Err(Refusal::new(Kind::NotFound, format!("there is no template {:?}", short(&name))))
        }
    }
}

fn matches(rule: &RouteRule, head: &Head) -> bool {
    rule.method.as_deref().is_none_or(|method| head.method == method)
        && rule.model.as_deref().is_none_or(|model| head.route.model.as_deref() == Some(model))
        && rule.path_prefix.as_deref().is_none_or(|prefix| head.route.path.starts_with(prefix))
        && rule.header.as_ref().is_none_or(|(name, value)| {
            head.headers
                .get_all(name.as_str())
                .iter()
                .any(|found| found.as_bytes() == value.as_bytes())
        })
}

fn from_rule(rule: &RouteRule, head: &Head) -> Map<String, Value> {
    rule.variables
        .iter()
        .filter_map(|(name, source)| match source {
            VariableSource::Value(text) => Some((name.clone(), Value::from(text.as_str()))),
            VariableSource::Header(header) => {
                let value = head.headers.get(header.as_str())?;
                let text = String::from_utf8_lossy(value.as_bytes());
                Some((name.clone(), Value::from(text.as_ref())))
            }
        })
        .collect()
}

/// `x-chaperone-variables`: a JSON object, plain or in base64url.
fn from_header(header: &str) -> Result<Map<String, Value>, Refusal> {
    let refuse = || {
        let message = "x-chaperone-variables must be a JSON object, plain or in base64url";
        Refusal::new(Kind::Variables, message)
    };
    let bytes = if header.trim_start().starts_with('{') {
        header.as_bytes().to_vec()
    } else {
        URL_SAFE_NO_PAD
            .decode(header)
            .or_else(|_padded| URL_SAFE.decode(header))
            .map_err(|_unreadable| refuse())?
    };
    let text = json::check(&bytes).map_err(|_unreadable| refuse())?;
    // Values that could be read two ways are refused here as they are in bodies.
    walk(text, |_, _, _| {}).map_err(|_unreadable| refuse())?;
    serde_json::from_str(text).map_err(|_unreadable| refuse())
}

impl TemplateRef {
    /// Reads `name` or `name@version`.
    fn read(text: &str) -> Result<Self, Refusal> {
        let Some((name, version)) = catalog::named(text) else {
            let message = format!("{:?}: a version is a number, as in name@3", short(text));
            return Err(Refusal::new(Kind::NotFound, message));
        };
        Ok(Self { name: name.to_owned(), version })
    }
}

/// A percent-decoded name.
fn decoded(segment: &str) -> Result<String, Refusal> {
    let refuse = |_not_utf8| Refusal::new(Kind::BadRequest, "a name in the address is not UTF-8");
    percent_decode_str(segment).decode_utf8().map(Cow::into_owned).map_err(refuse)
}

/// A name of the caller's, short enough for a message.
pub(super) fn short(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(64).collect()
}

/// Facts by which units are found.
pub(super) fn header_unit(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{TemplateRef, decoded, from_header, without_ours};

    #[test]
    fn what_is_ours_leaves_a_body_that_nobody_reads() {
        for (body, left) in [
            (
                r#"{"file":{"name":"chaperone"},"chaperone":{"user":"u"}}"#,
                r#"{"file":{"name":"chaperone"}}"#,
            ),
            (r#"{"chaperone":1,"a":2,"chaperone":3}"#, r#"{"a":2}"#),
            (r#"{"chaperone":{}}"#, ""),
            (r#"{"file": "chaperone"}"#, r#"{"file": "chaperone"}"#),
            ("chaperone", "chaperone"),
            (r#"["chaperone"]"#, r#"["chaperone"]"#),
        ] {
            assert_eq!(without_ours(body.into()), left, "{body}");
        }
    }

    #[test]
    fn references() {
        for (text, name, version) in
            [("a", "a", None), ("a@3", "a", Some(3)), ("a@b@3", "a@b", Some(3))]
        {
            let template = TemplateRef::read(text).unwrap();
            assert_eq!((template.name.as_str(), template.version), (name, version));
        }
        assert!(TemplateRef::read("a@x").is_err());
        assert_eq!(decoded("a%2Fb%20c").unwrap(), "a/b c");
        assert!(decoded("%ff").is_err());
    }

    #[test]
    fn variables_come_plain_or_encoded() {
        for header in [r#"{"a":"b"}"#, "eyJhIjoiYiJ9", "eyJhIjoiYiIgfQ=="] {
            assert_eq!(from_header(header).unwrap()["a"], "b", "{header}");
        }
        for header in ["[1]", "x", "{", r#"{"a":1,"a":2}"#] {
            assert!(from_header(header).is_err(), "{header}");
        }
    }
}

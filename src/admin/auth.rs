//! Who may do what: bearer tokens, kept and compared as digests, in constant time.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use super::Admin;
use super::problem::Problem;
use crate::words::digest::sha256;
use crate::words::secret::Secret;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Reads and writes.
    SuperAdmin,
    /// Only reads.
    Viewer,
}

/// The tokens in force, as digests.
#[derive(Debug, Clone)]
pub struct Tokens {
    super_admin: [u8; 32],
    viewer: Option<[u8; 32]>,
}

impl Tokens {
    /// Keeps the digests only.
    pub fn new(super_admin: &Secret, viewer: Option<&Secret>) -> Self {
        let digest = |token: &Secret| sha256(token.expose().as_bytes());
        Self { super_admin: digest(super_admin), viewer: viewer.map(digest) }
    }

    /// Every token is compared, whatever the others said.
    fn role(&self, given: &str) -> Option<Role> {
        let given = sha256(given.as_bytes());
        let is_admin = given.ct_eq(&self.super_admin);
        let is_viewer = self.viewer.map_or(Choice::from(0), |viewer| given.ct_eq(&viewer));
        if is_admin.into() {
            Some(Role::SuperAdmin)
        } else if is_viewer.into() {
            Some(Role::Viewer)
        } else {
            None
        }
    }
}

/// Refuses requests without a token, and writes without the right one.
pub(super) async fn require(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .map(|(_, token)| token);
    let Some(role) = given.and_then(|token| admin.tokens.role(token)) else {
        let detail = "a valid token is needed: Authorization: Bearer <token>";
        return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if role == Role::Viewer && !reads {
        return Problem::new(StatusCode::FORBIDDEN, "this token may only read").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::{Role, Tokens};
    use crate::words::secret::Secret;

    #[test]
    fn roles_by_token() {
        let tokens = Tokens::new(&Secret::new("admin"), Some(&Secret::new("viewer")));
        for (given, role) in [
            ("admin", Some(Role::SuperAdmin)),
            ("viewer", Some(Role::Viewer)),
            ("admi", None),
            ("", None),
        ] {
            assert_eq!(tokens.role(given), role);
        }
        assert_eq!(Tokens::new(&Secret::new("admin"), None).role(""), None);
    }
}

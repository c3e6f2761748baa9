//! Who may do what: bearer tokens, kept and compared as digests, in constant time.
//!
//! Two may stand in the configuration; any number in a file that is read again whenever it changes, so
//! that tokens are made and taken away without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::telemetry::events;
use crate::words::digest::{hex, sha256};
use crate::words::secret::Secret;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes.
    SuperAdmin,
    /// Only reads.
    Viewer,
    /// Only says how executions turned out: for applications, which need nothing else.
    Feedback,
}

impl Role {
    /// As it stands in the tokens file.
    pub fn name(self) -> &'static str {
        match self {
            Self::SuperAdmin => "super_admin",
            Self::Viewer => "viewer",
            Self::Feedback => "feedback",
        }
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it: stands in the audit.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the token in hex.
    pub sha256: String,
}

/// The tokens file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// All tokens, first come first.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

impl Token {
    /// Keeps the digest only.
    pub fn new(name: &str, role: Role, token: &Secret) -> Self {
        let sha256 = hex(&sha256(token.expose().as_bytes()));
        Self { name: name.to_owned(), role, sha256 }
    }
}

impl TokenFile {
    /// Reads a file; one that is not there holds no tokens.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        let file: Self = toml::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
        let is_digest =
            |text: &str| text.len() == 64 && text.bytes().all(|one| one.is_ascii_hexdigit());
        for (index, token) in file.tokens.iter().enumerate() {
            if !is_digest(&token.sha256) {
                return Err(format!("{shown}: tokens[{index}].sha256 must be 64 hex digits"));
            }
            if file.tokens.iter().skip(index + 1).any(|other| other.name == token.name) {
                return Err(format!("{shown}: two tokens are named {:?}", token.name));
            }
        }
        Ok(file)
    }
}

/// The tokens in force.
#[derive(Debug)]
pub struct Tokens {
    configured: Vec<Token>,
    file: PathBuf,
    read: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    /// When the file was written that was read last, and its length.
    seen: Option<(SystemTime, u64)>,
    tokens: Arc<Vec<Token>>,
}

impl Tokens {
    /// The configured ones, and those in `file`.
    pub fn new(configured: Vec<Token>, file: PathBuf) -> Self {
        Self { configured, file, read: Mutex::default() }
    }

    /// Whose token this is. Every token is compared, whatever the others said.
    pub(super) fn find(&self, given: &str) -> Option<(String, Role)> {
        let given = hex(&sha256(given.as_bytes()));
        let filed = self.filed();
        let mut found = None;
        for token in self.configured.iter().chain(filed.iter()) {
            let known = token.sha256.to_ascii_lowercase();
            if given.as_bytes().ct_eq(known.as_bytes()).into() {
                found = Some((token.name.clone(), token.role));
            }
        }
        found
    }

    /// The tokens of the file as it is now; as it was when it cannot be read.
    fn filed(&self) -> Arc<Vec<Token>> {
        let mut state = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = std::fs::metadata(&self.file).ok();
        let seen = metadata.and_then(|file| Some((file.modified().ok()?, file.len())));
        if seen != state.seen {
            match TokenFile::read(&self.file) {
                Ok(file) => {
                    state.tokens = Arc::new(file.tokens);
                    state.seen = seen;
                }
                // Tried again with the next request.
                Err(why) => events::tokens_unreadable(&why),
            }
        }
        state.tokens.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, Token, TokenFile, Tokens};
    use crate::words::secret::Secret;

    #[test]
    fn tokens_come_and_go_with_their_file() {
        let dir = std::env::temp_dir().join(format!("chaperone-tokens-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("tokens.toml");
        let admin = Token::new("root", Role::SuperAdmin, &Secret::new("admin"));
        let tokens = Tokens::new(vec![admin], path.clone());
        assert_eq!(tokens.find("admin"), Some(("root".to_owned(), Role::SuperAdmin)));
        for wrong in ["admi", "admin ", "", "view"] {
            assert_eq!(tokens.find(wrong), None);
        }
        let write = |names: &[&str]| {
            let tokens = names
                .iter()
                .map(|name| Token::new(name, Role::Viewer, &Secret::new(format!("of {name}"))))
                .collect();
            std::fs::write(&path, toml::to_string(&TokenFile { tokens }).unwrap()).unwrap();
        };
        write(&["ann", "bob"]);
        assert_eq!(tokens.find("of bob"), Some(("bob".to_owned(), Role::Viewer)));
        write(&["ann"]);
        assert_eq!(tokens.find("of bob"), None, "taken away");
        assert!(tokens.find("of ann").is_some() && tokens.find("admin").is_some());
        std::fs::write(&path, "tokens = 1").unwrap();
        assert!(tokens.find("of ann").is_some(), "a broken file changes nothing");
        assert!(TokenFile::read(&path).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

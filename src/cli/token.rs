//! `chaperone token`: who may use the admin API.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::arguments::{TokenRole, TokenStep};
use super::{say, settings};
use crate::admin::{Role, Token, TokenFile};
use crate::app;
use crate::words::secret::Secret;

const OWNER_ONLY: u32 = 0o600;
const NAME_CHARS_MAX: usize = 64;
/// Names of the tokens that stand in the configuration.
const CONFIGURED: [&str; 2] = ["super_admin", "viewer"];

/// Makes, lists or takes away tokens in the tokens file.
pub fn token(file: Option<&Path>, step: TokenStep) -> anyhow::Result<()> {
    let settings = settings(file)?;
    app::make_data_dir(&settings.storage.data_dir)?;
    let path = app::tokens_file(&settings);
    let mut known = TokenFile::read(&path).map_err(|why| anyhow::anyhow!(why))?;
    match step {
        TokenStep::List => {
            for token in &known.tokens {
                say(format_args!("{}\t{}", token.name, token.role.name()));
            }
            return Ok(());
        }
        TokenStep::Add { name, role } => {
            if CONFIGURED.contains(&name.as_str()) {
                bail!(
                    "{name:?} is what the token of the configuration is called; take another name"
                );
            }
            let is_plain = |one: char| one.is_alphanumeric() || "_-.@".contains(one);
            if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || !name.chars().all(is_plain)
            {
                bail!("a name has 1 to {NAME_CHARS_MAX} letters, digits, _ - . or @");
            }
            if known.tokens.iter().any(|token| token.name == name) {
                bail!("{name:?} is taken; `chaperone token list` shows who holds one");
            }
            let role = match role {
                TokenRole::SuperAdmin => Role::SuperAdmin,
                TokenRole::Viewer => Role::Viewer,
                TokenRole::Feedback => Role::Feedback,
            };
            let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            known.tokens.push(Token::new(&name, role, &Secret::new(token.clone())));
            write(&path, &known)?;
            say(token);
        }
        TokenStep::Remove { name } => {
            let before = known.tokens.len();
            known.tokens.retain(|token| token.name != name);
            if known.tokens.len() == before {
                bail!("nobody named {name:?} holds a token");
            }
            write(&path, &known)?;
            say(format_args!("the token of {name} is gone"));
        }
    }
    Ok(())
}

/// Written beside and moved into place: a running proxy never reads half a file.
fn write(path: &Path, tokens: &TokenFile) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let text = toml::to_string(tokens).context("the tokens file")?;
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(&beside)
        .with_context(|| beside.display().to_string())?;
    file.write_all(text.as_bytes()).with_context(|| beside.display().to_string())?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

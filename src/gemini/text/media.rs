//! Strings of requests and answers that are no text, or text in another coat: signatures, pictures and sound,
//! addresses.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::shown;
use crate::gemini::Dialect;
use crate::gemini::json::{Step, is_free};

/// The model's own signature of a part: bytes, not text.
pub(super) fn is_signature(dialect: Dialect, path: &[Step<'_>]) -> bool {
    let is_here = match dialect {
        Dialect::Native => matches!(path, [.., Step::Key(parts), Step::Index(_), Step::Key(last)]
            if parts == "parts" && last == "thoughtSignature"),
        Dialect::Interactions => matches!(path,
            [Step::Key(root), .., Step::Key(last)] if last == "signature" && holds_steps(root)),
        Dialect::OpenAi => {
            matches!(path, [.., Step::Key(extra), Step::Key(google), Step::Key(last)]
            if extra == "extraContent" && google == "google" && last == "thoughtSignature")
        }
    };
    is_here && !is_free(path)
}

/// Whether a member of an interaction, or of an event of its stream, holds what was said.
fn holds_steps(root: &str) -> bool {
    ["steps", "input", "delta", "step", "interaction"].contains(&root)
}

/// Sound and pictures in the body of a chat completion, pictures among predictions and images.
pub(super) fn is_media(dialect: Dialect, path: &[Step<'_>], text: &str) -> bool {
    if dialect == Dialect::Native && path.last().is_some_and(|step| step.is("bytesBase64Encoded")) {
        return !is_free(path)
            && path.first().is_some_and(|step| step.is("instances") || step.is("predictions"));
    }
    if let (Dialect::OpenAi, [Step::Key(data), Step::Index(_), Step::Key(last)]) = (dialect, path) {
        return data == "data" && last == "b64Json";
    }
    let [
        Step::Key(list),
        Step::Index(_),
        Step::Key(content),
        Step::Index(_),
        Step::Key(parent),
        Step::Key(last),
    ] = path
    else {
        return false;
    };
    let is_audio = parent == "inputAudio" && last == "data";
    let is_image = parent == "imageUrl" && last == "url" && text.starts_with("data:image/");
    dialect == Dialect::OpenAi
        && list == "messages"
        && content == "content"
        && (is_audio || is_image)
}

/// Whether a string names text that is fetched by the upstream.
pub(super) fn is_pointer(path: &[Step<'_>], text: &str) -> bool {
    let Some((Step::Key(last), before)) = path.split_last() else { return false };
    let parent = before.last();
    let under = |name: &str| parent.is_some_and(|step| step.is(name));
    match last.as_ref() {
        "cachedContent" | "previousInteractionId" | "gcsUri" => !text.is_empty() && !is_free(path),
        "fileUri" => under("fileData"),
        "fileName" => under("inputConfig"),
        "url" => under("imageUrl") && !text.starts_with("data:image/"),
        // Media of an interaction that are fetched; in a list of the input or of a step.
        "uri" => matches!(path.first(), Some(Step::Key(root)) if root == "input") && !is_free(path),
        _ => false,
    }
}

/// The types of media in parts, by part. Those of a text type are text in another coat.
#[derive(Debug, Default)]
pub(super) struct MediaTypes(HashMap<String, String>);

impl MediaTypes {
    /// The part when the string is its data; looks at the type.
    pub(super) fn data_of(
        &mut self,
        dialect: Dialect,
        path: &[Step<'_>],
        text: &str,
    ) -> Option<String> {
        let is_here = match (dialect, path) {
            (
                Dialect::Native,
                [.., Step::Key(parts), Step::Index(_), Step::Key(parent), Step::Key(_)],
            ) => parts == "parts" && parent == "inlineData",
            (Dialect::Interactions, [Step::Key(root), .., Step::Key(_)]) => holds_steps(root),
            _ => false,
        };
        let (Step::Key(last), before) = path.split_last().filter(|_| is_here && !is_free(path))?
        else {
            return None;
        };
        match last.as_ref() {
            "data" => Some(shown(before)),
            "mimeType" => {
                self.0.insert(shown(before), text.to_ascii_lowercase());
                None
            }
            _ => None,
        }
    }

    /// Whether the data of a part are pictures or sound, as their type says.
    pub(super) fn are_media(&self, part: &str) -> bool {
        let media = ["image/", "audio/", "video/", "application/pdf"];
        let kind = self.0.get(part);
        kind.is_some_and(|kind| media.iter().any(|media| kind.starts_with(media)))
    }
}

/// Either base64 alphabet, padded or not, as the service takes it.
pub(super) fn decoded(data: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let alphabet =
        if data.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    let bytes = GeneralPurpose::new(alphabet, config).decode(data).ok()?;
    String::from_utf8(bytes).ok()
}

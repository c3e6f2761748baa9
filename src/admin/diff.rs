//! What differs between two versions.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::call::{Params, Whose, parse_id};
use super::problem::Problem;
use super::write::row;
use crate::catalog::definitions::TemplateDefinition;
use crate::store::Table;

/// Two versions and what differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    from: Side,
    to: Side,
    /// Fields that differ, with both values.
    changed: Vec<Changed>,
    /// The texts line by line.
    lines: Vec<Line>,
}

/// One of the two.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Side {
    id: Uuid,
    name: String,
    version: u32,
}

/// A field that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    field: String,
    from: Value,
    to: Value,
}

/// A line of the texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Line {
    change: Kind,
    text: String,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Same,
    Removed,
    Added,
}

#[utoipa::path(get, path = "/templates/{id}/diff/{other}",
    params(("id" = Uuid, Path), ("other" = Uuid, Path), Whose), responses((status = 200, body = Difference)))]
pub(super) async fn compare(
    State(admin): State<Admin>,
    Path((id, other)): Path<(String, String)>,
    Params(whose): Params<Whose>,
) -> Result<Json<Difference>, Problem> {
    let tenant = whose.tenant()?;
    let mut sides = Vec::new();
    for id in [parse_id(&id)?, parse_id(&other)?] {
        let row = row(&admin, Table::Templates, &tenant, id).await?;
        sides.push(row.definition::<TemplateDefinition>(Table::Templates)?);
    }
    let [from, to] = sides.as_slice() else {
        return Err(Problem::not_found("two versions are compared"));
    };
    Ok(Json(Difference {
        from: side(from),
        to: side(to),
        changed: changed(from, to),
        lines: lines(&whole(from), &whole(to)),
    }))
}

fn side(definition: &TemplateDefinition) -> Side {
    Side { id: definition.id.0, name: definition.name.clone(), version: definition.version }
}

fn changed(from: &TemplateDefinition, to: &TemplateDefinition) -> Vec<Changed> {
    let json = |one: &TemplateDefinition| serde_json::to_value(one).unwrap_or_default();
    let (from, to) = (json(from), json(to));
    [
        "name",
        "description",
        "category",
        "tags",
        "template_text",
        "template_syntax",
        "messages",
        "target",
        "variables",
        "model_config",
    ]
    .into_iter()
    .filter_map(|field| {
        let (from, to) = (from.get(field)?.clone(), to.get(field)?.clone());
        (from != to).then(|| Changed { field: field.to_owned(), from, to })
    })
    .collect()
}

/// All text of a version: messages behind lines that name their role.
fn whole(definition: &TemplateDefinition) -> String {
    let Some(messages) = &definition.messages else { return definition.template_text.clone() };
    let one = |message: &crate::template::Message| {
        let role = serde_json::to_value(message.role).unwrap_or_default();
        format!("[{}]\n{}", role.as_str().unwrap_or_default(), message.text)
    };
    messages.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// The shortest way from one text to the other, line by line, after Myers, "An O(ND) Difference
/// Algorithm" (1986). Texts that share almost nothing are shown as removed and added whole.
fn lines(from: &str, to: &str) -> Vec<Line> {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let left = from.len().min(to.len()) - same;
    let from_behind = from.iter().rev().zip(to.iter().rev());
    let same_end = from_behind.take(left).take_while(|(one, other)| one == other).count();
    let middle = |lines: &[&str]| -> Vec<String> {
        let end = lines.len() - same_end;
        lines.get(same..end).unwrap_or_default().iter().map(|one| (*one).to_owned()).collect()
    };
    let line = |change, text: &str| Line { change, text: text.to_owned() };
    let mut all: Vec<Line> = from.iter().take(same).map(|text| line(Kind::Same, text)).collect();
    all.extend(script(&middle(&from), &middle(&to)));
    all.extend(from.iter().skip(from.len() - same_end).map(|text| line(Kind::Same, text)));
    all
}

/// Edits beyond which two texts are taken to share nothing.
const EDITS_MAX: usize = 2_000;

fn script(from: &[String], to: &[String]) -> Vec<Line> {
    let line = |change, text: &String| Line { change, text: text.clone() };
    let Some(trace) = trace(from, to) else {
        let removed = from.iter().map(|text| line(Kind::Removed, text));
        return removed.chain(to.iter().map(|text| line(Kind::Added, text))).collect();
    };
    let (mut x, mut y) = (from.len(), to.len());
    let mut lines = Vec::new();
    for (edits, reached) in trace.iter().enumerate().rev() {
        let (before_x, before_y) = step_back(reached, edits, x, y);
        while x > before_x && y > before_y {
            (x, y) = (x - 1, y - 1);
            lines.extend(from.get(x).map(|text| line(Kind::Same, text)));
        }
        if edits > 0 && x > before_x {
            x = before_x;
            lines.extend(from.get(x).map(|text| line(Kind::Removed, text)));
        } else if edits > 0 {
            y = before_y;
            lines.extend(to.get(y).map(|text| line(Kind::Added, text)));
        }
    }
    lines.reverse();
    lines
}

/// By number of edits: how far each diagonal had come before the next one. `None`: too many edits.
fn trace(from: &[String], to: &[String]) -> Option<Vec<Vec<usize>>> {
    let most = (from.len() + to.len()).min(EDITS_MAX);
    let middle = most + 1;
    let mut reached = vec![0; 2 * middle + 1];
    let mut trace = Vec::new();
    for edits in 0..=most {
        trace.push(reached.clone());
        for diagonal in (middle - edits..=middle + edits).step_by(2) {
            let mut x = furthest(&reached, diagonal, middle, edits).0;
            // x - y is the diagonal counted from the middle.
            while let Some(y) = (x + middle).checked_sub(diagonal)
                && let (Some(one), Some(other)) = (from.get(x), to.get(y))
                && one == other
            {
                x += 1;
            }
            if let Some(place) = reached.get_mut(diagonal) {
                *place = x;
            }
            if x >= from.len() && x + middle >= to.len() + diagonal {
                return Some(trace);
            }
        }
    }
    None
}

/// Where a diagonal is entered with this many edits, and whether by an added line.
fn furthest(reached: &[usize], diagonal: usize, middle: usize, edits: usize) -> (usize, bool) {
    let at = |diagonal: usize| reached.get(diagonal).copied().unwrap_or(0);
    if edits == 0 {
        return (0, false);
    }
    let down = diagonal == middle - edits
        || (diagonal != middle + edits && at(diagonal - 1) < at(diagonal + 1));
    if down { (at(diagonal + 1), true) } else { (at(diagonal - 1) + 1, false) }
}

/// The place before the last edit on the way to `x`, `y`.
fn step_back(reached: &[usize], edits: usize, x: usize, y: usize) -> (usize, usize) {
    let middle = reached.len() / 2;
    let diagonal = middle + x - y;
    let (entered, down) = furthest(reached, diagonal, middle, edits);
    if edits == 0 {
        return (0, 0);
    }
    let before_x = if down { entered } else { entered - 1 };
    let before_diagonal = if down { diagonal + 1 } else { diagonal - 1 };
    (before_x, before_x + middle - before_diagonal)
}

#[cfg(test)]
mod tests {
    use super::{Kind, lines};

    /// Both texts can be read off the lines, and no shorter way exists for these.
    #[test]
    fn lines_lead_from_one_text_to_the_other() {
        for (from, to, edits) in [
            ("a\nb\nc", "a\nb\nc", 0),
            ("", "a\nb", 2),
            ("a\nb", "", 2),
            ("a\nb\nc\na\nb\nb\na", "c\nb\na\nb\na\nc", 5),
            ("x\na\ny", "x\nb\ny", 2),
            ("1\n2\n3\n4", "0\n1\n2\n4\n5", 3),
        ] {
            let lines = lines(from, to);
            let side = |gone: Kind| -> String {
                let kept = lines.iter().filter(|line| line.change != gone);
                kept.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
            };
            assert_eq!((side(Kind::Added).as_str(), side(Kind::Removed).as_str()), (from, to));
            let found = lines.iter().filter(|line| line.change != Kind::Same).count();
            assert_eq!(found, edits, "{from:?} {to:?} {lines:?}");
        }
    }
}

//! What is read and what is written must be apart: an output that takes its input's place destroys it.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::image::Input;
use crate::publish::own_place;

/// Refuses outputs and locks that would stand where the input stands, in it, or around it.
pub(super) fn keep_apart<'a>(input: &Input, places: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
    input.path().map_or(Ok(()), |path| keep_apart_from(path, places))
}

/// The same of a path that is read.
pub(super) fn keep_apart_from<'a>(input: &Path, places: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
    // Where there is no input, reading it will say so.
    let Ok(source) = fs_err::canonicalize(input) else { return Ok(()) };
    for place in places {
        let text = place.display();
        let trouble = match spellings(place).iter().find_map(|place| relation(&source, place)) {
            None => continue,
            Some(Relation::Same) => format!("the output `{text}` is the input itself"),
            Some(Relation::Inside) => format!("the output `{text}` lies in the input `{}`", source.display()),
            Some(Relation::Around) => format!("the input `{}` lies in the output `{text}`", source.display()),
        };
        return Err(Failure::usage(trouble).hint("give the output a place of its own: what is read stays as it is"));
    }
    Ok(())
}

/// The same of a profile; one that comes with minjail is no file.
pub(super) fn keep_apart_from_profile<'a>(name: &str, places: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
    let path = Path::new(name);
    if path.is_file() { keep_apart_from(path, places) } else { Ok(()) }
}

/// Refuses a trace that would stand where an output is to be, in it, or around it.
pub(super) fn keep_trace_apart<'a>(trace: &Path, mut places: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
    let Some(own) = own_place(trace) else { return Ok(()) };
    let is_met = |place: &&Path| own_place(place).is_some_and(|place| relation(&own, &place).is_some());
    match places.find(is_met) {
        Some(place) => Err(Failure::usage(format!(
            "`{}` is to be an output, and the trace too, as `{}`: one would take the other's place",
            place.display(),
            trace.display()
        ))
        .hint("give the trace a place of its own")),
        None => Ok(()),
    }
}

enum Relation {
    Same,
    Inside,
    Around,
}

fn relation(source: &Path, place: &Path) -> Option<Relation> {
    if source == place {
        Some(Relation::Same)
    } else if source.starts_with(place) {
        Some(Relation::Around)
    } else if place.starts_with(source) && source != Path::new("/") {
        // Where the whole machine is the input, every output lies in it.
        Some(Relation::Inside)
    } else {
        None
    }
}

/// Where an output is to be: by its own name, and where that leads if it is a link already.
fn spellings(place: &Path) -> Vec<PathBuf> {
    own_place(place).into_iter().chain(fs_err::canonicalize(place)).collect()
}

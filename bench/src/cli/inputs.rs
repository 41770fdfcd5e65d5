//! Files of players on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spdz::channel::Name;

use crate::tensor_files::Source;
use crate::usage::refuse;

/// `NAME=FILE`.
pub(super) fn named_file(text: &str) -> Result<(Name, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !file.is_empty() => {
            let name = name.parse().map_err(|error| format!("{error}"))?;
            Ok((name, file.into()))
        }
        _ => {
            Err("expected a player's name, an equals sign and a file, as in alice=a.safetensors"
                .into())
        }
    }
}

/// `NAME=FILE`, or `NAME.INPUT=FILE` for one of several inputs.
pub(super) fn source(text: &str) -> Result<(Name, Source), String> {
    let (name, tensor) = match text.split_once('=') {
        Some((name, _)) => match name.split_once('.') {
            Some((player, tensor)) => (player, Some(tensor.to_owned())),
            None => (name, None),
        },
        None => (text, None),
    };
    let file = text.split_once('=').map_or("", |(_, file)| file);
    let (name, path) = named_file(&format!("{name}={file}"))?;
    Ok((name, Source { tensor, path }))
}

/// Inputs by player: one file with names of its own, or several with one input each.
pub(super) fn inputs(files: Vec<(Name, Source)>) -> anyhow::Result<BTreeMap<Name, Vec<Source>>> {
    let mut map: BTreeMap<Name, Vec<Source>> = BTreeMap::new();
    for (name, source) in files {
        let sources = map.entry(name).or_default();
        sources.push(source);
        if sources.len() > 1 && sources.iter().any(|source| source.tensor.is_none()) {
            refuse!(
                "--player {name}=... is given twice; put all tensors of a player into one file, or \
                 name the input of each, as in --player {name}.INPUT=FILE"
            );
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_of_a_player_each_have_an_input() {
        let of = |texts: &[&str]| {
            let sources = texts.iter().map(|text| source(text).unwrap());
            inputs(sources.collect()).map_err(|error| error.to_string())
        };
        let found = of(&["alice.x=a.b=c.npy", "alice.w=w.csv", "bob=b.npz"]).unwrap();
        let alice = &found[&"alice".parse().unwrap()];
        let expected = Source { tensor: Some("x".into()), path: "a.b=c.npy".into() };
        assert_eq!((alice.len(), &alice[0]), (2, &expected));
        for twice in [["alice=a", "alice=b"], ["alice.x=a", "alice=b"]] {
            let error = of(&twice).unwrap_err();
            assert!(error.contains("--player alice=... is given twice"), "{error}");
        }
        assert!(source("alice.x").is_err() && source("Alice.x=a").is_err());
    }
}

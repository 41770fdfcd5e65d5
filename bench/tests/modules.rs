//! The arrows between modules and between crates: they go one way.
//!
//! The files of a crate are a graph: one file points to another whose modules, types or
//! functions it names. A circle in it is a knot of files that can only be read, changed and
//! tested together, so none is allowed. What a `mod.rs` merely declares or re-exports is no
//! arrow; a name is followed through re-exports to the file that defines it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, Token, UseTree};

/// The crates, each after those that it may depend on.
const ORDER: [&str; 5] = ["spdz", "party", "operator", "bench", "decoders"];

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for (name, folder) in crates() {
        if let Some(circles) = Sources::read(&folder.join("src")).circles() {
            wrong.push(format!("{name} has circles of imports:\n{circles}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_depend_on_those_below_them_alone() {
    let place = |name: &str| ORDER.iter().position(|crate_name| *crate_name == name);
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let own = place(name).unwrap_or_else(|| panic!("{name} has no place in the order yet"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let below = place(other).is_none_or(|other| other < own);
            assert!(below || dependency["path"].is_null(), "{name} must not depend on {other}");
        }
    }
}

/// The members of the workspace, as cargo sees them.
fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Their names and folders.
fn crates() -> Vec<(String, PathBuf)> {
    let folder = |package: &serde_json::Value| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        (package["name"].as_str().unwrap().to_owned(), manifest.parent().unwrap().to_owned())
    };
    packages().iter().map(folder).collect()
}

/// A module, which is a file or a part of one.
struct Module {
    file: usize,
    /// None for the root.
    parent: Option<usize>,
    children: HashMap<String, usize>,
    /// What it defines.
    defined: HashSet<String>,
    imports: Vec<Import>,
}

/// A name that a `use` makes, or with `*` all names of a module.
#[derive(Clone)]
struct Import {
    name: Option<String>,
    path: Vec<String>,
}

/// What a path leads to.
#[derive(Debug, PartialEq)]
enum Found {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
    /// Something of another crate.
    Outside,
    /// No name that is written anywhere, perhaps since a macro makes it; the module that
    /// should have it.
    Unknown(usize),
}

/// The modules of a crate and the arrows between their files.
#[derive(Default)]
struct Sources {
    folder: PathBuf,
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    /// From file to file, with a path that makes the arrow.
    arrows: BTreeMap<usize, BTreeMap<usize, String>>,
}

/// Paths that a module names, and where.
struct Mentions {
    module: usize,
    /// In a `use` that re-exports nothing.
    imported: Vec<Vec<String>>,
    /// Anywhere else.
    named: BTreeSet<Vec<String>>,
}

impl Sources {
    /// Reads the crate whose roots, `lib.rs` and `main.rs`, are in `folder`.
    fn read(folder: &Path) -> Self {
        let mut sources = Self { folder: folder.into(), ..Self::default() };
        let mut mentions = Vec::new();
        for root in ["lib.rs", "main.rs"].map(|root| folder.join(root)) {
            if root.exists() {
                sources.read_file(&root, folder, None, &mut mentions);
            }
        }
        for Mentions { module, imported, named } in mentions {
            for path in imported.into_iter().chain(named) {
                sources.point(module, &path);
            }
        }
        sources
    }

    fn read_file(
        &mut self,
        path: &Path,
        children: &Path,
        parent: Option<usize>,
        mentions: &mut Vec<Mentions>,
    ) -> usize {
        let text = std::fs::read_to_string(path).unwrap();
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        self.files.push(path.into());
        self.read_module(self.files.len() - 1, children, parent, &file.items, mentions)
    }

    /// Reads a module whose children's files are in the folder `children`.
    fn read_module(
        &mut self,
        file: usize,
        children: &Path,
        parent: Option<usize>,
        items: &[Item],
        mentions: &mut Vec<Mentions>,
    ) -> usize {
        let index = self.modules.len();
        self.modules.push(Module {
            file,
            parent,
            children: HashMap::new(),
            defined: HashSet::new(),
            imports: Vec::new(),
        });
        let mut reader = Reader::default();
        for item in items {
            reader.visit_item(item);
            if let Some(name) = defined_name(item) {
                self.modules[index].defined.insert(name);
            }
            match item {
                Item::Use(item) if !for_tests(&item.attrs) => {
                    let imports = flattened(&item.tree);
                    self.modules[index].imports.extend(imports);
                }
                Item::Mod(ItemMod { attrs, ident, content, .. }) if !for_tests(attrs) => {
                    let name = ident.to_string();
                    let folder = children.join(&name);
                    let child = match content {
                        Some((_, items)) => {
                            self.read_module(file, &folder, Some(index), items, mentions)
                        }
                        None => {
                            let beside = children.join(format!("{name}.rs"));
                            let inside = folder.join("mod.rs");
                            let usual = if beside.exists() { beside } else { inside };
                            let own = self.files[file].parent().unwrap_or(children);
                            let path = elsewhere(attrs).map_or(usual, |path| own.join(path));
                            self.read_file(&path, &folder, Some(index), mentions)
                        }
                    };
                    self.modules[index].children.insert(name, child);
                }
                _ => {}
            }
        }
        let Reader { imported, named } = reader;
        mentions.push(Mentions { module: index, imported, named });
        index
    }

    /// The arrow from a module's file to the file of what it names, if that is another.
    fn point(&mut self, module: usize, path: &[String]) {
        let target = match self.find(module, path, 0) {
            Found::Module(target) | Found::Item(target) | Found::Unknown(target) => target,
            Found::Outside => return,
        };
        let (from, to) = (self.modules[module].file, self.modules[target].file);
        if from != to {
            self.arrows.entry(from).or_default().entry(to).or_insert_with(|| path.join("::"));
        }
    }

    /// What a path in a module leads to, through at most so many re-exports.
    fn find(&self, module: usize, path: &[String], depth: usize) -> Found {
        let [first, rest @ ..] = path else { return Found::Module(module) };
        match first.as_str() {
            "crate" => self.descend(self.root(module), rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => match self.modules[module].parent {
                // `super::super` has the next step in it.
                Some(parent) if rest.first().is_some_and(|next| next == "super") => {
                    self.find(parent, rest, depth)
                }
                Some(parent) => self.descend(parent, rest, depth),
                None => Found::Outside,
            },
            // A name that is in scope, or a crate, or a variable.
            _ => match self.descend(module, path, depth) {
                Found::Unknown(last) if last == module => Found::Outside,
                found => found,
            },
        }
    }

    fn descend(&self, module: usize, path: &[String], depth: usize) -> Found {
        let [name, rest @ ..] = path else { return Found::Module(module) };
        let Module { children, defined, imports, .. } = &self.modules[module];
        if let Some(child) = children.get(name) {
            return self.descend(*child, rest, depth);
        }
        // Of a type the rest are its variants, constants and functions.
        if defined.contains(name) {
            return Found::Item(module);
        }
        if depth > 32 {
            return Found::Unknown(module);
        }
        if let Some(import) = imports.iter().find(|import| import.name.as_ref() == Some(name)) {
            // `use name;` of a crate would lead to itself.
            if import.path.first() == Some(name) {
                return Found::Outside;
            }
            let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
            return self.find(module, &path, depth + 1);
        }
        for import in imports.iter().filter(|import| import.name.is_none()) {
            if let Found::Module(other) = self.find(module, &import.path, depth + 1)
                && other != module
            {
                match self.descend(other, path, depth + 1) {
                    Found::Unknown(_) | Found::Outside => {}
                    found => return found,
                }
            }
        }
        Found::Unknown(module)
    }

    fn root(&self, module: usize) -> usize {
        self.modules[module].parent.map_or(module, |parent| self.root(parent))
    }

    /// The shortest circles that have no file in common, file by file, with what makes each
    /// arrow.
    fn circles(&self) -> Option<String> {
        let mut circles: Vec<Vec<usize>> =
            self.arrows.keys().filter_map(|start| self.way_back(*start)).collect();
        circles.sort_by_key(Vec::len);
        let mut shown = HashSet::new();
        circles.retain(|circle| {
            let apart = circle.iter().all(|file| !shown.contains(file));
            if apart {
                shown.extend(circle.iter().copied());
            }
            apart
        });
        let name = |file: usize| {
            let path = &self.files[file];
            path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
        };
        let arrow = |pair: &[usize]| {
            let path = &self.arrows[&pair[0]][&pair[1]];
            format!("  {} names {path}, which is in {}", name(pair[0]), name(pair[1]))
        };
        let texts = circles
            .iter()
            .map(|circle| circle.windows(2).map(arrow).collect::<Vec<_>>().join("\n"));
        Some(texts.collect::<Vec<_>>().join("\n\n")).filter(|text| !text.is_empty())
    }

    /// The shortest way along arrows from a file back to itself.
    fn way_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut before: HashMap<usize, usize> = HashMap::new();
        let mut edge = vec![start];
        while !edge.is_empty() {
            let mut next = Vec::new();
            for file in edge {
                for &to in self.arrows.get(&file).into_iter().flat_map(BTreeMap::keys) {
                    if before.contains_key(&to) {
                        continue;
                    }
                    before.insert(to, file);
                    if to == start {
                        let mut way = vec![start, file];
                        while way.last() != Some(&start) {
                            way.push(before[&way[way.len() - 1]]);
                        }
                        way.reverse();
                        return Some(way);
                    }
                    next.push(to);
                }
            }
            edge = next;
        }
        None
    }
}

/// The name of an item that defines one.
fn defined_name(item: &Item) -> Option<String> {
    let (attrs, ident) = match item {
        Item::Const(item) => (&item.attrs, &item.ident),
        Item::Enum(item) => (&item.attrs, &item.ident),
        Item::Fn(item) => (&item.attrs, &item.sig.ident),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()?),
        Item::Static(item) => (&item.attrs, &item.ident),
        Item::Struct(item) => (&item.attrs, &item.ident),
        Item::Trait(item) => (&item.attrs, &item.ident),
        Item::Type(item) => (&item.attrs, &item.ident),
        Item::Union(item) => (&item.attrs, &item.ident),
        _ => return None,
    };
    (!for_tests(attrs)).then(|| ident.to_string())
}

/// The file that `#[path = "..."]` names.
fn elsewhere(attrs: &[Attribute]) -> Option<String> {
    attrs.iter().find_map(|attr| match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// The names that a `use` makes.
fn flattened(tree: &UseTree) -> Vec<Import> {
    fn collect(tree: &UseTree, mut path: Vec<String>, imports: &mut Vec<Import>) {
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                collect(&tree.tree, path, imports);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| collect(tree, path.clone(), imports));
            }
            UseTree::Glob(_) => imports.push(Import { name: None, path }),
            UseTree::Name(_) | UseTree::Rename(_) => {
                let (ident, name) = match tree {
                    UseTree::Rename(tree) => {
                        (tree.ident.to_string(), Some(tree.rename.to_string()))
                    }
                    UseTree::Name(tree) => (tree.ident.to_string(), None),
                    _ => return,
                };
                if ident != "self" || path.is_empty() {
                    path.push(ident);
                }
                let name = name.or_else(|| path.last().cloned());
                imports.push(Import { name, path });
            }
        }
    }
    let mut imports = Vec::new();
    collect(tree, Vec::new(), &mut imports);
    imports
}

/// Whether an item is compiled for tests alone.
fn for_tests(attrs: &[Attribute]) -> bool {
    fn is_test(condition: &Meta) -> bool {
        let any = |list: &syn::MetaList| {
            let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
            list.parse_args_with(parse).is_ok_and(|inner| inner.iter().any(is_test))
        };
        match condition {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => any(list),
            _ => false,
        }
    }
    attrs.iter().any(|attr| match &attr.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| is_test(&condition))
        }
        _ => false,
    })
}

/// Collects the paths of a module, without those of the modules inside it.
#[derive(Default)]
struct Reader {
    imported: Vec<Vec<String>>,
    named: BTreeSet<Vec<String>>,
}

impl Reader {
    /// Of tokens that nobody has parsed, all that look like a path; of texts in attributes
    /// (`#[serde(with = "crate::x")]`) those that are one.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.named.insert(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                }
                other => {
                    self.named.insert(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.read_tokens(group.stream()),
                        TokenTree::Literal(literal) => {
                            let text = literal.to_string();
                            let text = text.trim_matches('"');
                            let own = ["crate::", "self::", "super::"];
                            if own.iter().any(|start| text.starts_with(start))
                                && let Ok(parsed) = syn::parse_str::<syn::Path>(text)
                            {
                                self.visit_path(&parsed);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.named.insert(path);
    }
}

macro_rules! skip_tests {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(&mut self, node: &'ast $type) {
            if !for_tests(&node.attrs) {
                visit::$method(self, node);
            }
        })+
    };
}

impl<'ast> Visit<'ast> for Reader {
    skip_tests! {
        visit_item_const: syn::ItemConst,
        visit_item_enum: syn::ItemEnum,
        visit_item_fn: syn::ItemFn,
        visit_item_impl: syn::ItemImpl,
        visit_item_macro: syn::ItemMacro,
        visit_item_static: syn::ItemStatic,
        visit_item_struct: syn::ItemStruct,
        visit_item_trait: syn::ItemTrait,
        visit_item_type: syn::ItemType,
        visit_impl_item_fn: syn::ImplItemFn,
        visit_impl_item_const: syn::ImplItemConst,
        visit_trait_item_fn: syn::TraitItemFn,
    }

    /// A module of its own.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    /// What is re-exported is an arrow where its name is used, and there alone.
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !for_tests(&item.attrs) && matches!(item.vis, syn::Visibility::Inherited) {
            self.imported.extend(flattened(&item.tree).into_iter().map(|import| import.path));
        }
    }

    /// `pub(super)` names nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.named.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc")
            && let Meta::List(list) = &attribute.meta
        {
            self.read_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.read_tokens(call.tokens.clone());
    }
}

/// Writes the files of a crate and says which circle it has.
fn circle_of(files: &[(&str, &str)]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Sources::read(folder.path()).circles()
}

#[test]
fn arrows_that_go_one_way_are_no_circle() {
    let files = [
        ("lib.rs", "pub mod a;\npub mod b;\npub use a::A;\nmod tool;"),
        // Declares and re-exports alone; its children use each other's names through it.
        ("a/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::{Two, two as second};"),
        ("a/one.rs", "pub struct One;"),
        ("a/two.rs", "use crate::a::One;\npub struct Two(One);\npub fn two() { super::One; }"),
        // Names both of them, and itself.
        (
            "b.rs",
            "use crate::{A, a::{self, Two}};\nstruct B;\nfn b() { a::second(); self::B; crate::b::B; }",
        ),
        // The tests of a file may use whatever they like.
        ("tool.rs", "use crate::b;\n#[cfg(test)]\nmod tests { use crate::user; }"),
    ];
    assert_eq!(circle_of(&files), None);
}

#[test]
fn circles_are_found_however_they_are_written() {
    let two = |there: &str, back: &str| {
        let files = [("lib.rs", "mod a;\nmod b;\n"), ("a.rs", there), ("b.rs", back)];
        circle_of(&files)
    };
    let back = "pub fn g() { crate::a::f() }";
    for there in [
        "use crate::b::g;\npub fn f() {}",
        "use super::b;\npub fn f() {}",
        "use crate::b::*;\npub fn f() {}",
        "pub fn f() { use crate::b::g; }",
        "pub fn f() { crate::b::g() }",
        "pub fn f() -> crate::b::G { todo!() }",
        "pub fn f() { println!(\"{:?}\", crate::b::g()) }",
        "macro_rules! m { () => { $crate::b::g() }; }\npub fn f() {}",
        "#[serde(with = \"crate::b\")]\npub struct F;\npub fn f() {}",
        "pub use crate::b::g;\npub fn f() { g() }",
        "mod inside { fn h() { super::super::b::g() } }\npub fn f() {}",
    ] {
        let circle = two(there, back).unwrap_or_else(|| panic!("no circle in {there}"));
        assert!(
            circle.contains("a.rs names") && circle.contains("b.rs names crate::a::f"),
            "{circle}"
        );
    }
    assert_eq!(two("pub use crate::b::g;\npub fn f() {}", back), None, "a re-export alone");
    assert_eq!(two("#[cfg(test)]\nmod tests { use crate::b; }\npub fn f() {}", back), None);
}

#[test]
fn a_child_and_its_parent_are_a_circle_if_each_names_the_other() {
    let family = |parent: &str, child: &str| {
        circle_of(&[("lib.rs", "mod p;"), ("p/mod.rs", parent), ("p/child.rs", child)])
    };
    let child = "pub(super) struct Child;";
    assert_eq!(family("mod child;\nstruct Parent(child::Child);", child), None);
    let child = "use super::Shared;\npub struct Child(Shared);";
    assert_eq!(family("mod child;\npub use child::Child;\npub struct Shared;", child), None);
    for parent in [
        "mod child;\npub use child::Child;\npub struct Shared(Child);",
        "mod child;\nuse child::Child;\npub struct Shared(Child);",
        "mod child;\npub struct Shared(child::Child);",
        "mod child;\npub struct Shared;\nimpl Shared { fn f() { child::new() } }",
    ] {
        let circle = family(parent, child).unwrap();
        assert!(
            circle.contains("p/child.rs names super::Shared, which is in p/mod.rs"),
            "{circle}"
        );
    }
}

#[test]
fn a_circle_of_many_files_is_told_whole() {
    let circle = circle_of(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        ("a.rs", "use crate::b::B;\npub struct A;"),
        ("b.rs", "use crate::c::C;\npub struct B;"),
        ("c.rs", "use crate::a::A;\npub struct C;"),
        ("d.rs", "use crate::a::A;"),
    ]);
    let expected = "  a.rs names crate::b::B, which is in b.rs\n\
                    \x20 b.rs names crate::c::C, which is in c.rs\n\
                    \x20 c.rs names crate::a::A, which is in a.rs";
    assert_eq!(circle.as_deref(), Some(expected));
}

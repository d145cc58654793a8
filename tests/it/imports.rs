//! The files of each crate import each other in one direction, and no crate grows without end.
//!
//! Method: a small lexer reads the sources, without their tests. Paths that begin with `crate`,
//! `self`, `super` or a child module are followed through re-exports to the file that defines the
//! item. An *arrow* goes from a file to each other file whose items it names. A re-export gives no
//! arrow if the file that has it does not use the name itself.
//!
//! A *circle* is a set of files that reach each other along arrows. A module and its children may
//! import each other. So if a module in a circle is an ancestor of all the others in it, that
//! module is taken out, and the rest must be free of circles. The same is then done with folders:
//! among the children of a module, a folder and all files in it count as one node. So there can be
//! a *circle of folders* where there is no circle of files.
//!
//! `cargo test --test it imports -- --nocapture` prints the files, arrows and circles of each
//! crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Maximum number of lines in a crate, without its tests.
const CRATE_LINES_MAX: usize = 10_000;

/// Circles that exist: for each, the crate and the sorted members. The members are files, or the
/// children of one module (with a `/` if they are folders). If an entry is no longer a circle, it
/// is stale, and the test fails.
const KNOWN_CIRCLES: &[(&str, &[&str])] = &[];

/// A token and its line. A string is a `"` and its content; a character is a `'` alone; lifetimes
/// are dropped.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }

    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// Cuts a Rust text into tokens: names, numbers, strings, `::`, and every other character alone.
/// Comments are dropped.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let (mut tokens, mut next, mut line) = (Vec::new(), 0, 1);
    while next < chars.len() {
        let start = next;
        let mut token = None;
        if at(next) == '/' && at(next + 1) == '/' {
            while next < chars.len() && at(next) != '\n' {
                next += 1;
            }
        } else if at(next) == '/' && at(next + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(next), at(next + 1)) {
                    ('/', '*') => (depth, next) = (depth + 1, next + 2),
                    ('*', '/') => (depth, next) = (depth - 1, next + 2),
                    _ => next += 1,
                }
                if depth == 0 || next >= chars.len() {
                    break;
                }
            }
        } else if is_word(at(next)) {
            while is_word(at(next)) {
                next += 1;
            }
            let word: String = chars[start..next].iter().collect();
            let hashes = (next..).take_while(|index| at(*index) == '#').count();
            let is_raw = matches!(word.as_str(), "r" | "br" | "cr");
            if is_raw && at(next + hashes) == '"' {
                let content = next + hashes + 1;
                let ends =
                    |index: usize| at(index) == '"' && (1..=hashes).all(|after| at(index + after) == '#');
                let end = (content..chars.len()).find(|index| ends(*index)).unwrap_or(chars.len());
                token = Some(format!("\"{}", chars[content..end].iter().collect::<String>()));
                next = (end + 1 + hashes).min(chars.len());
            } else if is_raw && hashes == 1 && is_word(at(next + 1)) {
                next += 1;
                let name = next;
                while is_word(at(next)) {
                    next += 1;
                }
                token = Some(chars[name..next].iter().collect());
            } else if !(matches!(word.as_str(), "b" | "c") && matches!(at(next), '"' | '\'')) {
                // The `b` of `b"…"` is dropped.
                token = Some(word);
            }
        } else if at(next) == '"' {
            next += 1;
            while next < chars.len() && at(next) != '"' {
                next += if at(next) == '\\' { 2 } else { 1 };
            }
            next = next.min(chars.len());
            token = Some(format!("\"{}", chars[start + 1..next].iter().collect::<String>()));
            next += 1;
        } else if at(next) == '\'' {
            if at(next + 1) == '\\' {
                next += 3;
                while next < chars.len() && at(next) != '\'' {
                    next += 1;
                }
                next += 1;
                token = Some("'".to_owned());
            } else if at(next + 2) == '\'' {
                next += 3;
                token = Some("'".to_owned());
            } else {
                next += 1;
                while is_word(at(next)) {
                    next += 1;
                }
            }
        } else if at(next) == ':' && at(next + 1) == ':' {
            next += 2;
            token = Some("::".to_owned());
        } else {
            if !at(next).is_whitespace() {
                token = Some(at(next).to_string());
            }
            next += 1;
        }
        next = next.min(chars.len());
        tokens.extend(token.map(|text| Token { text, line }));
        line += chars[start..next].iter().filter(|char| **char == '\n').count();
    }
    tokens
}

/// Returns the index after the bracket that closes the one at `open`.
fn end_of(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// True for an attribute of an item that only tests use: `cfg(test)` or `cfg(all(test, …))`, which
/// compile it for the tests of its own crate only, and `doc(hidden)`, which marks a module that
/// tests and benches of other crates share.
fn is_of_tests(attribute: &[Token]) -> bool {
    let words: Vec<&str> =
        attribute.iter().filter(|token| token.is_name()).map(|token| token.text.as_str()).collect();
    if words == ["doc", "hidden"] {
        return true;
    }
    words.first() == Some(&"cfg")
        && words.contains(&"test")
        && !words.iter().any(|word| matches!(*word, "not" | "any"))
}

/// Returns the index after the item, field or statement that begins at `start`.
fn end_of_item(tokens: &[Token], start: usize) -> usize {
    const ITEMS: [&str; 17] = [
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "let",
        "macro_rules",
        "mod",
        "pub",
        "static",
        "struct",
        "trait",
        "type",
        "union",
        "unsafe",
        "use",
    ];
    let mut index = start;
    while tokens.get(index).is_some_and(|token| token.is("#")) {
        index = end_of(tokens, index + 1);
    }
    let is_item = tokens.get(index).is_some_and(|token| ITEMS.contains(&token.text.as_str()));
    if tokens.get(index).is_some_and(|token| token.is("pub")) {
        index += 1;
        if tokens.get(index).is_some_and(|token| token.is("(")) {
            index = end_of(tokens, index);
        }
    }
    let words: Vec<&str> =
        tokens[index..].iter().take_while(|token| token.is_name()).map(|token| token.text.as_str()).collect();
    // These items end at a semicolon, even if braces come before it. A `const fn` does not.
    let needs_semicolon = !words.contains(&"fn")
        && words.first().is_some_and(|word| matches!(*word, "use" | "const" | "static" | "type" | "let"));
    while index < tokens.len() {
        match tokens[index].text.as_str() {
            ";" => return index + 1,
            "," if !is_item => return index + 1,
            "}" => return index,
            "{" => {
                index = end_of(tokens, index);
                if !needs_semicolon {
                    return index;
                }
            }
            "(" | "[" => index = end_of(tokens, index),
            _ => index += 1,
        }
    }
    index
}

/// Returns the tokens without those of tests, and the number of lines of the tests.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    let (mut kept, mut lines, mut index) = (Vec::new(), 0, 0);
    while index < tokens.len() {
        if tokens[index].is("#") && tokens.get(index + 1).is_some_and(|token| token.is("[")) {
            let end = end_of(tokens, index + 1);
            if is_of_tests(&tokens[index + 2..end - 1]) {
                let item = end_of_item(tokens, end);
                lines += tokens[item - 1].line - tokens[index].line + 1;
                index = item;
                continue;
            }
        }
        kept.push(tokens[index].clone());
        index += 1;
    }
    (kept, lines)
}

/// One path of a `use`, and the name that it binds; none for a glob.
#[derive(Clone, Debug, PartialEq)]
struct Use {
    path: Vec<String>,
    name: Option<String>,
}

/// Reads the tree of a `use`, which begins at `index`, and adds its paths to `uses`. Returns the
/// index after the tree.
fn use_tree(tokens: &[Token], mut index: usize, mut path: Vec<String>, uses: &mut Vec<Use>) -> usize {
    while let Some(token) = tokens.get(index) {
        match token.text.as_str() {
            "::" => {
                if path.is_empty() {
                    path.push(String::new());
                }
                index += 1;
            }
            "*" => {
                uses.push(Use { path, name: None });
                return index + 1;
            }
            "{" => {
                let end = end_of(tokens, index);
                index += 1;
                while index < end - 1 {
                    let next = use_tree(tokens, index, path.clone(), uses);
                    // After a comma, or at the closing bracket.
                    index = if tokens[next].is(",") { next + 1 } else { next.max(index + 1) };
                }
                return end;
            }
            "as" => {
                let name = tokens.get(index + 1).map(|token| token.text.clone());
                uses.push(Use { path: plain(path), name });
                return index + 2;
            }
            _ if token.is_name() => {
                path.push(token.text.clone());
                index += 1;
            }
            _ => break,
        }
    }
    let path = plain(path);
    let name = path.last().cloned();
    uses.push(Use { path, name });
    index
}

/// Turns the path of `a::{self}` into that of `a`.
fn plain(mut path: Vec<String>) -> Vec<String> {
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    path
}

/// What a file contains. The first member of each tuple is the path of the inline modules in which
/// the item is.
#[derive(Debug, Default)]
struct Said {
    /// Modules with files of their own.
    modules: Vec<(Vec<String>, String)>,
    /// Modules whose text is in this file.
    inline: Vec<Vec<String>>,
    uses: Vec<(Vec<String>, Use, bool)>,
    paths: Vec<(Vec<String>, Vec<String>)>,
    /// Names outside of `use`.
    words: BTreeSet<String>,
}

impl Said {
    /// Returns the first name of each path, but not the empty one in front of a leading `::`.
    fn first(&self) -> impl Iterator<Item = &str> {
        let paths =
            self.uses.iter().map(|(_, one, _)| &one.path).chain(self.paths.iter().map(|(_, path)| path));
        paths.filter_map(|path| path.iter().find(|name| !name.is_empty())).map(String::as_str)
    }
}

/// Finds the modules, imports and paths in the tokens of a file without its tests.
fn said(tokens: &[Token]) -> Said {
    let mut said = Said::default();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut index, mut is_public) = (0usize, 0, false);
    while let Some(token) = tokens.get(index) {
        let here = || inline.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let next = |after: usize| tokens.get(index + after).map_or("", |token| token.text.as_str());
        let before = index.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                while inline.last().is_some_and(|(_, at)| *at == depth) {
                    inline.pop();
                }
            }
            "mod" if next(2) == ";" => said.modules.push((here(), next(1).to_owned())),
            "mod" if next(2) == "{" => {
                inline.push((next(1).to_owned(), depth));
                said.inline.push(inline.iter().map(|(name, _)| name.clone()).collect());
                depth += 1;
                index += 2;
            }
            "pub" => {
                is_public = true;
                index = if next(1) == "(" { end_of(tokens, index + 1) } else { index + 1 };
                continue;
            }
            // The `use` in `impl Trait + use<'a>` imports nothing.
            "use" if next(1) != "<" => {
                let mut uses = Vec::new();
                index = use_tree(tokens, index + 1, Vec::new(), &mut uses);
                let at = here();
                said.uses.extend(uses.into_iter().map(|one| (at.clone(), one, is_public)));
                is_public = false;
                continue;
            }
            _ if token.is_name() => {
                said.words.insert(token.text.clone());
                if before != "::" && before != "." && next(1) == "::" {
                    let mut path = vec![token.text.clone()];
                    while next(2 * path.len() - 1) == "::"
                        && tokens.get(index + 2 * path.len()).is_some_and(Token::is_name)
                    {
                        let name = next(2 * path.len()).to_owned();
                        said.words.insert(name.clone());
                        path.push(name);
                    }
                    index += 2 * path.len() - 2;
                    said.paths.push((here(), path));
                }
            }
            _ => {}
        }
        is_public = false;
        index += 1;
    }
    said
}

/// A file of a crate.
#[derive(Debug)]
struct File {
    /// The path below the folder of the crate.
    name: String,
    module: Vec<String>,
    lines: usize,
}

/// The files of a crate, and the arrows between them.
#[derive(Debug, Default)]
struct Graph {
    files: Vec<File>,
    arrows: BTreeMap<usize, BTreeSet<usize>>,
    /// The first names of all paths, which include the names of crates.
    first: BTreeSet<String>,
}

/// Modules by path: the file of each, and what its `use` lines bind.
#[derive(Default)]
struct Modules {
    files: BTreeMap<Vec<String>, usize>,
    bound: BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
}

impl Modules {
    /// Returns the module that defines the item to which `path` leads when it is written in the
    /// module `from`; `None` if the item is not in this crate.
    fn resolve(&self, from: &[String], path: &[String], steps: usize) -> Option<Vec<String>> {
        let child = |module: &[String], name: &String| {
            let child: Vec<String> = module.iter().chain([name]).cloned().collect();
            self.files.contains_key(&child).then_some(child)
        };
        if steps == 0 {
            return None;
        }
        let mut module = from.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (module, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            first => {
                let bound = self.bound.get(&module).is_some_and(|bound| bound.contains_key(first));
                if child(&module, &rest[0]).is_none() && !bound {
                    return None;
                }
            }
        }
        while rest.first().is_some_and(|name| name == "super") {
            module.pop()?;
            rest = &rest[1..];
        }
        while let Some(name) = rest.first() {
            if let Some(child) = child(&module, name) {
                (module, rest) = (child, &rest[1..]);
            } else if let Some(target) = self.bound.get(&module).and_then(|bound| bound.get(name)) {
                let path: Vec<String> = target.iter().chain(&rest[1..]).cloned().collect();
                // A name bound to itself is a crate: `use bytes;`.
                return if path == rest { None } else { self.resolve(&module, &path, steps - 1) };
            } else {
                break;
            }
        }
        Some(module)
    }
}

/// Maximum number of steps from re-export to re-export.
const STEPS_MAX: usize = 32;

/// Reads a crate from its root on; `read` gives the text of a file, if it is there.
fn graph(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Graph {
    let mut graph = Graph::default();
    let mut modules = Modules::default();
    let mut all: Vec<Said> = Vec::new();
    let mut open = vec![(root.to_owned(), Vec::<String>::new())];
    while let Some((name, module)) = open.pop() {
        let text = read(&name).unwrap_or_else(|| panic!("{name} is not there"));
        let (kept, test_lines) = without_tests(&tokens(&text));
        let said = said(&kept);
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let stem = file.trim_end_matches(".rs");
        let folder = if name == root || stem == "mod" { folder } else { format!("{folder}{stem}/") };
        for (inline, child) in &said.modules {
            let below: String = inline.iter().map(|name| format!("{name}/")).collect();
            let path = [format!("{folder}{below}{child}.rs"), format!("{folder}{below}{child}/mod.rs")];
            let path = path.into_iter().find(|path| read(path).is_some());
            let path = path.unwrap_or_else(|| panic!("{name}: module {child} has no file"));
            let child = module.iter().chain(inline).chain([child]).cloned().collect();
            open.push((path, child));
        }
        modules.files.insert(module.clone(), graph.files.len());
        for inline in &said.inline {
            modules.files.insert(module.iter().chain(inline).cloned().collect(), graph.files.len());
        }
        for (inline, one, _) in &said.uses {
            if let Some(name) = &one.name {
                let at = module.iter().chain(inline).cloned().collect();
                modules.bound.entry(at).or_default().insert(name.clone(), one.path.clone());
            }
        }
        let lines = text.lines().count().saturating_sub(test_lines);
        graph.files.push(File { name, module, lines });
        graph.first.extend(said.first().map(str::to_owned));
        all.push(said);
    }
    for (from, said) in all.iter().enumerate() {
        let used = said.uses.iter().filter(|(_, one, is_public)| {
            !is_public || one.name.as_ref().is_none_or(|name| said.words.contains(name))
        });
        let used = used.map(|(inline, one, _)| (inline, &one.path));
        let paths = said.paths.iter().map(|(inline, path)| (inline, path));
        for (inline, path) in used.chain(paths) {
            let at: Vec<String> = graph.files[from].module.iter().chain(inline).cloned().collect();
            // The path that binds a name is not resolved by that same binding:
            // `use super::archive::archive`.
            let target = modules.resolve(&at, path, STEPS_MAX).map(|module| modules.files[&module]);
            if let Some(target) = target.filter(|target| *target != from) {
                graph.arrows.entry(from).or_default().insert(target);
            }
        }
    }
    graph
}

/// Returns the largest sets of two or more `nodes` that reach each other along arrows.
fn strong<N: Copy + Ord>(nodes: &BTreeSet<N>, arrows: &BTreeMap<N, BTreeSet<N>>) -> Vec<BTreeSet<N>> {
    let reached = |from: N| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(node) = open.pop() {
            let next = arrows.get(&node).into_iter().flatten().copied();
            open.extend(next.filter(|next| nodes.contains(next) && seen.insert(*next)));
        }
        seen
    };
    let reach: BTreeMap<N, BTreeSet<N>> = nodes.iter().map(|node| (*node, reached(*node))).collect();
    let mut found: BTreeSet<BTreeSet<N>> = BTreeSet::new();
    for (node, reached) in &reach {
        let mut set: BTreeSet<N> =
            reached.iter().copied().filter(|other| reach[other].contains(node)).collect();
        set.insert(*node);
        if set.len() > 1 {
            found.insert(set);
        }
    }
    found.into_iter().collect()
}

impl Graph {
    /// Returns the circles of `nodes`. If a module in a circle is an ancestor of all the others in
    /// it, the circle counts only if it still exists without that module.
    fn circles_of(&self, nodes: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let mut found = Vec::new();
        for mut circle in strong(nodes, &self.arrows) {
            let around = circle.iter().copied().find(|file| {
                let module = &self.files[*file].module;
                circle.iter().all(|other| self.files[*other].module.starts_with(module))
            });
            match around {
                Some(around) => {
                    circle.remove(&around);
                    found.extend(self.circles_of(&circle));
                }
                None => found.push(circle),
            }
        }
        found
    }

    /// Returns all circles, each with its members and the arrows between them. Members of a circle
    /// of files are file names; members of a circle of folders are paths of modules, with a `/`
    /// after those that have children.
    fn circles(&self) -> Vec<(Vec<String>, Vec<String>)> {
        let shown =
            |from: &usize, to: &usize| format!("{} -> {}", self.files[*from].name, self.files[*to].name);
        let mut found = Vec::new();
        for circle in self.circles_of(&(0..self.files.len()).collect()) {
            let mut names: Vec<String> = circle.iter().map(|file| self.files[*file].name.clone()).collect();
            names.sort();
            let arrows =
                self.arrows.iter().filter(|(from, _)| circle.contains(from)).flat_map(|(from, to)| {
                    to.iter().filter(|to| circle.contains(to)).map(move |to| shown(from, to))
                });
            found.push((names, arrows.collect()));
        }
        let parents: BTreeSet<&[String]> =
            self.files.iter().filter_map(|file| Some(file.module.split_last()?.1)).collect();
        for parent in &parents {
            // The child of `parent` that is this file, or contains it.
            let child = |file: usize| {
                let module = &self.files[file].module;
                (module.starts_with(parent) && module.len() > parent.len()).then(|| &module[..=parent.len()])
            };
            let mut arrows: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
            let pairs = self.arrows.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)));
            let pairs: Vec<_> = pairs
                .filter_map(|(from, to)| Some(((from, to), (child(from)?, child(to)?))))
                .filter(|(_, (from, to))| from != to)
                .collect();
            for (_, (from, to)) in &pairs {
                arrows.entry(from).or_default().insert(to);
            }
            let nodes = (0..self.files.len()).filter_map(child).collect();
            for circle in strong(&nodes, &arrows) {
                // A circle without a folder is a circle of files, which is in the list already.
                if circle.iter().any(|child| parents.contains(child)) {
                    let name = |child: &&[String]| {
                        format!("{}{}", child.join("::"), if parents.contains(child) { "/" } else { "" })
                    };
                    let arrows =
                        pairs.iter().filter(|(_, (from, to))| circle.contains(from) && circle.contains(to));
                    let arrows = arrows.map(|((from, to), _)| shown(from, to)).collect();
                    found.push((circle.iter().map(name).collect(), arrows));
                }
            }
        }
        found.sort();
        found
    }

    fn arrow_count(&self) -> usize {
        self.arrows.values().map(BTreeSet::len).sum()
    }

    fn lines(&self) -> usize {
        self.files.iter().map(|file| file.lines).sum()
    }
}

/// Returns the crates that a text, including its tests, may name: the first names of its paths.
pub(crate) fn first_names(text: &str) -> BTreeSet<String> {
    said(&tokens(text)).first().map(str::to_owned).collect()
}

/// Returns, for each of our crates, the crates that its sources may name outside of tests.
pub(crate) fn first_names_outside_tests() -> BTreeMap<String, BTreeSet<String>> {
    crates().into_iter().map(|(name, folder, root)| (name, graph_of(&folder, root).first)).collect()
}

/// Returns our crates: for each its name, the folder of its sources, and its root file.
fn crates() -> Vec<(String, PathBuf, &'static str)> {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("a manifest");
    let (_, members) = manifest.split_once("\nmembers = [").expect("Cargo.toml lists members");
    let members = members.split(']').next().expect("a first piece").split(',');
    let mut crates: Vec<(String, PathBuf, &'static str)> = members
        .map(|member| member.trim().trim_matches('"'))
        .filter(|member| !member.is_empty())
        .map(|member| (member.to_owned(), Path::new(ROOT).join(member).join("src"), "lib.rs"))
        .collect();
    crates.push(("cli".to_owned(), Path::new(ROOT).join("cli"), "main.rs"));
    crates
}

fn graph_of(folder: &Path, root: &str) -> Graph {
    graph(root, &|name| std::fs::read_to_string(folder.join(name)).ok())
}

#[test]
fn files_of_a_crate_import_in_one_direction() {
    let mut wrong = Vec::new();
    let mut known = KNOWN_CIRCLES.to_vec();
    for (name, folder, root) in crates() {
        let graph = graph_of(&folder, root);
        let circles = graph.circles();
        println!(
            "{name}: {} files, {} lines without tests, {} arrows, {} circles",
            graph.files.len(),
            graph.lines(),
            graph.arrow_count(),
            circles.len()
        );
        for (circle, arrows) in circles {
            println!("  circle of {}: {}", circle.len(), circle.join(", "));
            arrows.iter().for_each(|arrow| println!("    {arrow}"));
            match known.iter().position(|(of, entry)| *of == name && **entry == circle) {
                Some(at) => _ = known.remove(at),
                None => {
                    wrong.push(format!("a circle: ({name:?}, &{circle:?}),\n  by {}", arrows.join("\n     ")))
                }
            }
        }
    }
    wrong.extend(known.iter().map(|entry| format!("stale in KNOWN_CIRCLES: {entry:?}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_crate_grows_without_end() {
    let mut large = Vec::new();
    for (name, folder, root) in crates() {
        let lines = graph_of(&folder, root).lines();
        println!("{name}: {lines} lines without tests");
        if lines > CRATE_LINES_MAX {
            large.push(name);
        }
    }
    assert!(large.is_empty(), "crates above {CRATE_LINES_MAX} lines: {}", large.join(", "));
}

mod parser {
    use super::{Graph, graph, said, tokens, use_tree, without_tests};

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    /// Returns the graph of a crate of a few files, given by name and text.
    fn of(files: &[(&str, &str)]) -> Graph {
        let read =
            |name: &str| files.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
        graph("lib.rs", &read)
    }

    fn arrows(graph: &Graph) -> Vec<String> {
        let shown = |from: &usize, to: &usize| {
            format!("{}>{}", graph.files[*from].name, graph.files[*to].name).replace(".rs", "")
        };
        let arrows = graph.arrows.iter();
        let mut arrows: Vec<String> =
            arrows.flat_map(|(from, to)| to.iter().map(move |to| shown(from, to))).collect();
        arrows.sort();
        arrows
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        of(files).circles().into_iter().map(|(circle, _)| circle.join(" ")).collect()
    }

    #[test]
    fn comments_strings_and_lifetimes_hide_no_code() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r#"x("use \" crate::y", b"z", 'q', '\'', b'\\', '\u{41}')"#).join(" "),
            "x ( \"use \\\" crate::y , \"z , ' , ' , ' , ' )"
        );
        assert_eq!(words("r#\"a\"b\"# r\"c\" br##\"d\"# e\"## r#type").join(" "), "\"a\"b \"c \"d\"# e type");
        assert_eq!(words("fn f<'a>(x: &'a str) -> Cow<'_, str>").join(""), "fnf<>(x:&str)->Cow<,str>");
        assert_eq!(words("a::b :: c:d"), ["a", "::", "b", "::", "c", ":", "d"]);
        let lines: Vec<usize> = tokens("a\n\"b\nc\"\n/*\n*/ d").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 5]);
    }

    #[test]
    fn trees_of_use_are_taken_apart() {
        let of = |text: &str| {
            let mut uses = Vec::new();
            use_tree(&tokens(text), 0, Vec::new(), &mut uses);
            let shown = uses
                .into_iter()
                .map(|one| format!("{}={}", one.name.unwrap_or_else(|| "*".to_owned()), one.path.join("::")));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("crate::a::b;"), "b=crate::a::b");
        assert_eq!(of("super::a as b;"), "b=super::a");
        assert_eq!(
            of("crate::{a::{self, B, c::{D as E, self as f}}, g::*, H,};"),
            "a=crate::a B=crate::a::B E=crate::a::c::D f=crate::a::c *=crate::g H=crate::H"
        );
        assert_eq!(of("::std::io;"), "io=::std::io");
        assert_eq!(of("a::T as _;"), "_=a::T");
        assert_eq!(of("{crate::a, super::b};"), "a=crate::a b=super::b");
    }

    #[test]
    fn tests_are_left_out_with_their_lines() {
        let text = "use crate::a;\n#[cfg(test)]\nuse crate::{b, c};\n#[cfg(test)]\npub(crate) use crate::d;\n\
            #[cfg(test)]\n#[path = \"x_test.rs\"]\nmod tests;\n#[doc(hidden)]\npub mod testing;\n#[cfg(not(test))]\nuse crate::e;\n\
            struct S {\n    #[cfg(test)]\n    f: crate::f::F,\n    g: crate::g::G,\n}\n\
            #[cfg(test)]\nconst H: [u8; 2] = { crate::h::H };\n#[cfg(all(test, unix))]\nmod more {\n    use crate::i;\n}\n\
            #[cfg(test)]\npub fn x<A, B>(a: A) -> B {\n    crate::j::j()\n}\nfn y() { crate::k::k() }\n";
        let (kept, lines) = without_tests(&tokens(text));
        let said = said(&kept);
        let mut names: Vec<String> = said.uses.iter().map(|(_, one, _)| one.path.join("::")).collect();
        names.extend(said.paths.iter().map(|(_, path)| path.join("::")));
        assert_eq!(names, ["crate::a", "crate::e", "crate::g::G", "crate::k::k"]);
        assert!(said.modules.is_empty());
        assert_eq!(lines, 2 + 2 + 3 + 2 + 2 + 2 + 4 + 4);
    }

    #[test]
    fn paths_lead_to_the_file_that_defines_the_item() {
        let graph = of(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::x::X; pub use b::B;"),
            (
                "a/mod.rs",
                "mod x; mod y; pub(crate) use self::x::{X, Z as Renamed}; pub use bytes::Bytes; struct A;",
            ),
            ("a/x.rs", "use super::A; pub struct X; pub struct Z;"),
            ("a/y.rs", "fn f() { let x: super::super::c::C = crate::a::Renamed::new(self::g()); }"),
            ("b.rs", "use crate::X; use crate::a::{A, Bytes};"),
            (
                "c.rs",
                "fn f() { let at = std::b::f(); point.b::<u8>(); } mod inner { use super::super::b; } mod b {} fn g() { b::h() }",
            ),
        ]);
        let expected = ["a/x>a/mod", "a/y>a/x", "a/y>c", "b>a/mod", "b>a/x", "c>b"];
        assert_eq!(arrows(&graph), expected);
    }

    #[test]
    fn a_re_export_is_an_arrow_only_where_it_is_used() {
        let of = |text: &str| arrows(&of(&[("lib.rs", text), ("a.rs", "pub struct A; pub struct B;")]));
        assert!(of("mod a; pub use a::A;").is_empty());
        assert!(of("mod a; pub(crate) use a::{A, B as C};").is_empty());
        assert_eq!(of("mod a; pub use a::A; pub fn f() -> A {}"), ["lib>a"]);
        assert_eq!(of("mod a; use a::A;"), ["lib>a"]);
        assert_eq!(of("mod a; pub fn f() { a::g() }"), ["lib>a"]);
    }

    #[test]
    fn circles_are_found_outside_a_module_and_its_children() {
        let leaf = ("x.rs", "");
        assert!(circles(&[("lib.rs", "mod x;"), leaf]).is_empty());
        // A circle of files.
        let two = [("lib.rs", "mod x; mod y;"), ("x.rs", "use crate::y::Y;"), ("y.rs", "use super::x::X;")];
        assert_eq!(circles(&two), ["x.rs y.rs"]);
        // A module and its children import each other, which is no circle.
        let inside = [
            ("lib.rs", "mod m;"),
            ("m/mod.rs", "mod a; mod b; pub struct M; fn f() { a::f(); b::f(); }"),
            ("m/a.rs", "use super::M;"),
            ("m/b.rs", "use super::M; use super::a::A;"),
        ];
        assert!(circles(&inside).is_empty());
        // The same, but with a circle between the children.
        let mut children = inside;
        children[2].1 = "use super::b::B;";
        assert_eq!(circles(&children), ["m/a.rs m/b.rs"]);
        // A circle that leads from a module to another one.
        let outside = [
            ("lib.rs", "mod m; mod o;"),
            ("m/mod.rs", "mod a; pub struct M; use crate::o::O;"),
            ("m/a.rs", "use super::M;"),
            ("o.rs", "use crate::m::a::A;"),
        ];
        assert_eq!(circles(&outside), ["m/ o", "m/a.rs m/mod.rs o.rs"]);
        // A circle of folders that is not a circle of files.
        let folders = [
            ("lib.rs", "mod m; mod n;"),
            ("m/mod.rs", "mod a; mod b;"),
            ("m/a.rs", "use crate::n::c::C;"),
            ("m/b.rs", ""),
            ("n/mod.rs", "mod c; mod d;"),
            ("n/c.rs", ""),
            ("n/d.rs", "use crate::m::b::B;"),
        ];
        assert_eq!(circles(&folders), ["m/ n/"]);
    }
}

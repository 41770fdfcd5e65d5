//! `bench report`: what it says, what it refuses, and its page in a real browser.

#![allow(clippy::unwrap_used, clippy::panic)]

mod browser;
mod fixture;
mod page;

use std::path::Path;
use std::process::Command;

use bench::report::{Run, csv, read_all, write};
use bench::results::{Cell, Results};
use spdz::network::Reveal;
use spdz::plan::NumberFormat;

/// The report of these results: page, Markdown, CSV, JSON.
fn report(all: &[Results]) -> [String; 4] {
    let runs: Vec<Run> =
        all.iter().map(|results| Run::of(results.clone(), "somewhere".into())).collect();
    let folder = tempfile::tempdir().unwrap();
    let paths = write(&runs, folder.path()).unwrap();
    assert_eq!(paths.len(), 4);
    [0, 1, 2, 3].map(|form| std::fs::read_to_string(&paths[form]).unwrap())
}

#[test]
fn the_papers_table_and_batches_are_beside_ours() {
    let results = fixture::sweep("now", 1.0);
    let [_, markdown, _, json] = report(std::slice::from_ref(&results));
    let of_c = |cell: &&Cell| {
        cell.key.network == "C"
            && cell.key.format == NumberFormat::Int64
            && cell.key.batch_size == 1
    };
    let mean = results.runs.iter().find(of_c).unwrap().merged.as_ref().unwrap().combined.mean_ms;
    let row = format!("| C Int64 | Local | 124 (93) | {mean:.2} (");
    assert!(markdown.contains(&row), "{row}: {markdown}");
    assert!(markdown.contains(
        "| 99.44 / 99.41 | 99.68 / 99.67 | 99.54 to 99.76 | 10000 | 0.2311 | 2.9×10⁻⁷ |"
    ));
    for ms in ["124", "182", "541"] {
        assert!(markdown.contains(&format!(" | {ms} | ")), "the paper's {ms} ms");
    }
    assert!(markdown.contains("There is nothing to compare with: bench report OLD NEW"));
    assert!(!markdown.contains("Read this first"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["table1"].as_array().unwrap().len(), 6);
    assert_eq!(json["batches"].as_array().unwrap().len(), 6);
    assert_eq!(json["formats"].as_array().unwrap().len(), 9);
    // A key for each format that was measured.
    let formats = &json["formats"][0];
    assert_eq!(formats["int64"]["format"], "Int64");
    assert_eq!(formats["int100"]["format"], "Int100");
    assert!(formats["ratio"].as_f64().unwrap() > 1.0, "{formats}");
    let cell = results.runs[0].merged.as_ref().unwrap();
    let ratio = json["table1"][0]["ratio"].as_f64().unwrap();
    assert!((ratio - 14.0 / cell.combined.mean_ms).abs() < 1e-9, "{ratio}");
}

#[test]
fn the_same_results_have_not_changed_and_slower_ones_have() {
    let before = fixture::sweep("before", 1.0);
    let mut again = fixture::sweep("again", 1.0);
    again.runs.pop();
    let [_, markdown, ..] = report(&[before.clone(), again]);
    let cells =
        "again: no significant change in any of 17 cells; no significant change of all together: ";
    assert!(markdown.contains(cells), "{markdown}");
    assert!(markdown.contains("; 1 more in one of the two only."), "{markdown}");
    assert!(!markdown.contains("| slower |") && !markdown.contains("| faster |"), "{markdown}");
    let [page, markdown, ..] = report(&[before.clone(), fixture::sweep("slow", 1.3)]);
    assert!(
        markdown.contains("slow: 18 cells are slower, of 18; all together are slower: +30 % ("),
        "{markdown}"
    );
    assert!(page.contains("slower +30 %"));
    let [_, markdown, ..] = report(&[before, fixture::sweep("fast", 0.7)]);
    assert!(
        markdown.contains("fast: 18 cells are faster, of 18; all together are faster: "),
        "{markdown}"
    );
}

#[test]
fn failures_and_suspicious_cells_come_first() {
    let mut results = fixture::sweep("now", 1.0);
    fixture::spoil(&mut results);
    let [page, markdown, csv, json] = report(&[results]);
    let first = markdown.find("## ").unwrap();
    assert!(markdown[first..].starts_with("## Read this first"));
    assert!(markdown.contains("| failed | server-1 ended with exit code 3"));
    assert!(markdown.contains("| suspicious | its trials differ"));
    // Wherever the cell is named: phases, distributions, traffic.
    assert!(markdown.matches("| B Int100, batch 100 (suspicious) |").count() >= 3, "{markdown}");
    assert!(page.contains("17 cells and 1 failed"));
    assert!(csv.contains("server-1 ended with exit code 3"));
    assert!(json.contains("server-1 ended with exit code 3"));
}

#[test]
fn csv_has_a_row_for_each_cell() {
    let before = fixture::sweep("before", 1.0);
    let mut now = fixture::sweep("now", 1.0);
    fixture::spoil(&mut now);
    let label = &mut now.runs[1];
    label.key.reveal = Reveal::Label;
    let merged = label.merged.as_mut().unwrap();
    merged.reveal = Reveal::Label;
    merged.accuracy.as_mut().unwrap().mean_kl_divergence = None;
    now.runs[2].key.network = "score".into();
    let [html, markdown, csv, _] = report(&[before, now]);
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let head: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(head, csv::COLUMNS.map(|column| column.0));
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 36);
    let at = |row: &::csv::StringRecord, name: &str| {
        row[head.iter().position(|column| column == name).unwrap()].to_owned()
    };
    assert_eq!(at(&rows[0], "run"), "before");
    assert_eq!(at(&rows[0], "network"), "A");
    assert_eq!(at(&rows[0], "online_rounds"), "6");
    assert_eq!(at(&rows[0], "mean_kl_divergence").parse::<f64>().unwrap().log10().floor(), -7.0);
    assert_eq!(at(&rows[0], "reveal"), "logits");
    assert_eq!(at(&rows[19], "reveal"), "label");
    assert_eq!(at(&rows[19], "mean_kl_divergence"), "", "absent, not zero");
    assert_eq!(at(&rows[20], "reveal"), "", "a graph says it itself");
    let name = format!("{} (label)", at(&rows[19], "network"));
    for page in [html, markdown] {
        assert!(page.contains(&name) && page.contains("the client learns the class alone"));
        assert!(!page.contains("NaN"));
    }
    let failed: Vec<_> = rows.iter().filter(|row| !at(row, "failure").is_empty()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(at(failed[0], "combined_mean_ms"), "");
    assert_eq!(rows.iter().filter(|row| at(row, "suspicious") == "true").count(), 1);
}

#[test]
fn names_from_files_stay_text() {
    let mut results = fixture::sweep("<script>alert(1)</script>", 1.0);
    let evil = "<script>alert('x')</script>|`*\"&\n<img src=x onerror=alert(2)>";
    for (index, name) in [(0, evil.to_owned()), (1, format!("=cmd|{evil}"))] {
        let cell = &mut results.runs[index];
        cell.key.network.clone_from(&name);
        let merged = cell.merged.as_mut().unwrap();
        merged.network = name;
        merged.layers[0].name = evil.into();
        merged.layers[0].kind = evil.into();
        cell.failure = Some(evil.into());
    }
    results.environment.cpu = evil.into();
    results.environment.os = evil.into();
    let [page, markdown, csv, _] = report(&[results.clone(), results]);
    for text in [&page, &markdown] {
        assert!(!text.contains("<script") && !text.contains("<img"), "a tag of a name");
        assert!(text.contains("&lt;script&gt;"), "the name itself");
    }
    // Inside a row of a table nothing ends the cell or the line.
    for line in markdown.lines().filter(|line| line.contains("alert('x')")) {
        assert!(line.contains("\\|\\`\\*"), "{line}");
    }
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    assert!(reader.records().all(|row| !row.unwrap()[3].starts_with('=')));
}

/// Every part of the report is there whatever the results lack.
#[test]
fn poor_results_are_reported_too() {
    let full = fixture::sweep("now", 1.0);
    let mut one = full.clone();
    one.runs.truncate(1);
    let mut bare = full.clone();
    bare.speeds = None;
    for cell in &mut bare.runs {
        cell.floor_ms = None;
        let merged = cell.merged.as_mut().unwrap();
        merged.accuracy = None;
        merged.layers.clear();
        merged.combined.quantiles_ms.clear();
    }
    let mut failed = full;
    for cell in &mut failed.runs {
        cell.merged = None;
        cell.trials.clear();
        cell.failure = Some("no such node".into());
    }
    for results in [one, bare, failed] {
        let [page, markdown, csv, _] = report(&[results.clone(), results]);
        for id in page::SECTIONS {
            assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
        }
        for text in [page, markdown, csv] {
            let mut words = text.split(|letter: char| !letter.is_alphanumeric());
            assert_eq!(words.find(|word| ["NaN", "inf", "null", "None"].contains(word)), None);
        }
    }
}

#[test]
fn the_page_fetches_nothing_and_is_labelled() {
    let [page, ..] = report(&[fixture::sweep("before", 1.0), fixture::sweep("now", 1.0)]);
    let without = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "//", "src=", "@import", "url(", "<script"] {
        assert!(!without.contains(outside), "{outside}");
    }
    let mut ids: Vec<&str> =
        page.split(" id=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id is there twice");
    for reference in page.split("labelledby=\"").skip(1).filter_map(|part| part.split('"').next()) {
        assert!(reference.split(' ').all(|id| ids.binary_search(&id).is_ok()), "{reference}");
    }
    // A table for each section with plots.
    for section in page.split("<section ").skip(1) {
        assert!(!section.contains("<figure") || section.contains("<table"), "{section}");
    }
    assert!(page.matches("<svg").count() >= 20);
    assert_eq!(page.matches("<svg").count(), page.matches("<desc").count());
}

/// Runs the program, which fails, and returns what it complains of.
fn refusal(arguments: &[&Path]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).arg("report").args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn bad_results_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, content: Option<&str>| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        if let Some(content) = content {
            std::fs::write(folder.join("results.json"), content).unwrap();
        }
        folder
    };
    let mut empty = fixture::sweep("empty", 1.0);
    empty.runs.clear();
    let empty = serde_json::to_string(&empty).unwrap();
    let unreadable = at("unreadable", None);
    std::fs::create_dir(unreadable.join("results.json")).unwrap();
    let cases = [
        (at("nothing", None), "results.json", "bench sweep and bench table1 write"),
        (folder.path().join("absent"), "No such file", "bench sweep and bench table1 write"),
        (unreadable, "cannot read", "bench sweep and bench table1 write"),
        (at("other", Some(r#"{"schemaVersion":3}"#)), "schema version 3", "measure again"),
        (at("else", Some("not json")), "holds no results", "line 1"),
        (at("empty", Some(&empty)), "hold no cell", "run the sweep again"),
    ];
    for (path, found, advice) in cases {
        let message = refusal(&[&path]);
        assert!(message.starts_with("error: "), "{message}");
        assert!(message.contains(found) && message.contains(advice), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn the_program_writes_beside_the_last_results() {
    let folder = tempfile::tempdir().unwrap();
    let [before, now] = ["before", "now"].map(|name| {
        let at = folder.path().join(name);
        fixture::sweep("nightly", 1.0).write(&at).unwrap();
        at
    });
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("report")
        .args([&before, &now])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["report.html", "report.md", "report.csv", "report.json"] {
        assert!(now.join(name).is_file() && !before.join(name).exists(), "{name}");
    }
    // Sweeps of one name are told apart by their folders.
    let names: Vec<_> =
        read_all(&[before.clone(), now]).unwrap().into_iter().map(|run| run.name).collect();
    assert_eq!(names[0], format!("nightly ({})", before.display()));
    assert_ne!(names[0], names[1]);
}

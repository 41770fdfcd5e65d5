//! The report as one HTML page: no script, no font, no address but its own anchors.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::model::Report;
use super::parts::{Figure, Headline, Plot, Section, Table};
use super::sections::{headlines::headlines, sections};
use super::theme;

/// The style sheet but for its colours.
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn render(report: &Report<'_>) -> String {
    let sections = sections(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing is fetched, whatever a name in the results may hold.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "bench " (env!("CARGO_PKG_VERSION")) };
                link rel="icon" href="data:,";
                title { (report.title) }
                style { (PreEscaped(theme::css())) (PreEscaped(STYLE)) }
            }
            body {
                a .skip href="#main" { "Skip to the results" }
                header {
                    p .kind { "Benchmark report" }
                    h1 { (report.title) }
                    p .subtitle { (report.subtitle()) }
                    dl .headlines {
                        @for Headline { value, of } in headlines(report) {
                            div { dt { (of) } dd { (value) } }
                        }
                    }
                }
                nav aria-label="Sections" {
                    ul { @for section in &sections { li { a href={ "#" (section.id) } { (section.title) } } } }
                }
                main id="main" { @for section in &sections { (section_markup(section)) } }
                footer {
                    p {
                        "Made by " code { "bench report" } " " (env!("CARGO_PKG_VERSION"))
                        " of the secure-inference toolkit. Beside this page: the same in words "
                        "(" code { "report.md" } "), each cell as a row (" code { "report.csv" } "), "
                        "what was computed (" code { "report.json" } ")."
                    }
                }
            }
        }
    };
    page.into_string()
}

fn section_markup(section: &Section) -> Markup {
    let heading = format!("{}-heading", section.id);
    html! {
        section id=(section.id) aria-labelledby=(heading) class=[section.warning.then_some("warning")] {
            h2 id=(heading) { (section.title) }
            @for paragraph in &section.prose { p { (paragraph) } }
            @for (index, figure) in section.figures.iter().enumerate() {
                (figure_markup(figure, &format!("{}-{index}", section.id)))
            }
            @for (index, table) in section.tables.iter().enumerate() {
                (table_markup(table, &format!("{}-table-{index}", section.id)))
            }
        }
    }
}

fn figure_markup(figure: &Figure, id: &str) -> Markup {
    html! {
        figure {
            figcaption {
                (figure.caption)
                @if !figure.key.is_empty() {
                    span .key {
                        @for (ink, name) in &figure.key { span class=(ink.class()) { (name) } }
                    }
                }
            }
            @match &figure.plot {
                Plot::Rows(rows) => (rows.render(id)),
                Plot::Panels(panels) => (panels.render(id)),
            }
        }
    }
}

/// A table that scrolls by itself where it is wider than the page, by keys too.
fn table_markup(table: &Table, id: &str) -> Markup {
    let number = |head: &str| head.starts_with('>').then_some("number");
    html! {
        p .caption id=(id) { (table.caption) }
        div .table role="region" tabindex="0" aria-labelledby=(id) {
            table aria-labelledby=(id) {
                thead {
                    tr {
                        @for head in &table.head {
                            th scope="col" class=[number(head)] { (head.trim_start_matches('>')) }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (index, (cell, head)) in row.iter().zip(&table.head).enumerate() {
                                @if index == 0 { th scope="row" { (cell) } }
                                @else { td class=[number(head)] { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

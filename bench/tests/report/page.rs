//! The page in a browser: wide, on a phone, in the dark, on paper.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use bench::report::{Run, write};
use serde_json::Value;

use crate::browser::{Browser, program};
use crate::fixture;

/// What every page has.
pub(crate) const SECTIONS: [&str; 9] = [
    "table1",
    "batches",
    "phases",
    "layers",
    "distributions",
    "formats",
    "traffic",
    "comparison",
    "environment",
];

/// A picture in memory.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn decode(bytes: &[u8]) -> Self {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().unwrap();
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut buffer).unwrap();
        let channels = info.color_type.samples();
        assert!(channels >= 3, "{:?}", info.color_type);
        let pixels = buffer[..info.buffer_size()].chunks_exact(channels);
        let pixels = pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Self { width: info.width as usize, pixels }
    }

    /// The part of it that has not its commonest colour.
    fn drawn(&self) -> f64 {
        let mut counts: BTreeMap<[u8; 3], usize> = BTreeMap::new();
        for pixel in &self.pixels {
            *counts.entry(*pixel).or_default() += 1;
        }
        let ground = counts.values().max().copied().unwrap_or_default();
        1.0 - ground as f64 / self.pixels.len() as f64
    }

    /// How light its first pixel is, 0 to 255.
    fn corner(&self) -> u32 {
        self.pixels[0].iter().map(|&channel| u32::from(channel)).sum::<u32>() / 3
    }

    fn has(&self, colour: &str) -> bool {
        let channel = |at: usize| u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
        self.pixels.contains(&[1, 3, 5].map(channel))
    }
}

/// Where the visible elements of a selector are, by their ids or numbers.
fn places(browser: &mut Browser, selector: &str) -> Vec<(String, [f64; 4])> {
    let expression = format!(
        "[...document.querySelectorAll('{selector}')].map((e, i) => [e.id || e.parentElement.\
         parentElement.id + i, e.getBoundingClientRect()]).filter(([_, r]) => r.width > 0).map(\
         ([id, r]) => [id, [r.x + scrollX, r.y + scrollY, r.width, r.height]])"
    );
    serde_json::from_value(browser.evaluate(&expression)).unwrap()
}

/// What went wrong in the browser, and what it asked for.
fn troubles(browser: &Browser) -> (Vec<&Value>, Vec<&str>) {
    let named =
        |name: &'static str| browser.events.iter().filter(move |event| event["method"] == name);
    let exceptions = named("Runtime.exceptionThrown");
    let console = named("Runtime.consoleAPICalled").filter(|event| {
        ["error", "warning", "assert"].iter().any(|t| event["params"]["type"] == *t)
    });
    let log = named("Log.entryAdded").filter(|event| {
        ["error", "warning"].iter().any(|level| event["params"]["entry"]["level"] == *level)
    });
    let requests = named("Network.requestWillBeSent")
        .filter_map(|event| event["params"]["request"]["url"].as_str());
    (exceptions.chain(console).chain(log).collect(), requests.collect())
}

#[test]
fn the_page_shows_everything_everywhere() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => {
            // Past the test harness, which keeps what a test prints to itself.
            let line = format!("\nSKIPPED, no test of the page in a browser: {why}\n\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
    };
    // Stays there, to be looked at.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report-page");
    let mut now = fixture::sweep("now", 1.08);
    fixture::spoil(&mut now);
    now.runs[3].key.network = "</title><script>console.error('a name ran')</script>".into();
    let runs = [fixture::sweep("before", 1.0), now].map(|run| Run::of(run, "somewhere".into()));
    let page = write(&runs, &folder).unwrap().remove(0);
    let keep = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();

    let mut browser = Browser::start(&program);
    // What tells an empty picture from a full one can tell.
    let blank = browser.picture([0.0, 0.0, 200.0, 100.0]);
    assert_eq!(Picture::decode(&blank).drawn(), 0.0);

    let mut ids: Vec<&str> = vec!["problems"];
    ids.extend(SECTIONS);
    let mut corners = vec![];
    for (name, width, scheme, blue) in [
        ("light", 1280, "light", "#0a67a8"),
        ("dark", 1280, "dark", "#62b2ee"),
        ("phone", 390, "light", "#0a67a8"),
        ("small-phone", 320, "dark", "#62b2ee"),
    ] {
        browser.open(&page, width, scheme);
        let height = browser.evaluate("document.documentElement.scrollHeight").as_f64().unwrap();
        let whole = browser.picture([0.0, 0.0, f64::from(width), height]);
        keep(&format!("{name}.png"), &whole);
        let whole = Picture::decode(&whole);
        assert_eq!(whole.width, width as usize);
        corners.push(whole.corner());
        let overflow = browser.evaluate("document.scrollingElement.scrollWidth - innerWidth");
        assert!(overflow.as_f64().unwrap() <= 0.0, "{name}: {overflow} px too wide");
        let sections = places(&mut browser, "main > section");
        let found: Vec<&str> = sections.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(found, ids, "{name}");
        for (id, place) in sections {
            let drawn = Picture::decode(&browser.picture(place)).drawn();
            assert!(drawn > 0.01, "{name}: section {id} is blank ({drawn})");
        }
        // Each plot is there once, not too wide, and has the colours of its marks.
        let plots = places(&mut browser, "figure > svg");
        let figures = browser.evaluate("document.querySelectorAll('figure').length");
        assert_eq!(figures, plots.len(), "{name}");
        for (id, place) in plots {
            assert!(
                place[0] >= 0.0 && place[0] + place[2] <= f64::from(width) + 0.5,
                "{name} {id}"
            );
            let picture = Picture::decode(&browser.picture(place));
            assert!(picture.drawn() > 0.01, "{name}: plot {id} is blank");
            let comparison = id.starts_with("comparison");
            assert!(picture.has(blue) || comparison, "{name}: plot {id} has no {blue}");
        }
        // Nothing written in a plot leaves it.
        let outside = browser.evaluate(
            "[...document.querySelectorAll('svg text')].filter(t => { const r = t.getBoundingClientRect(), \
             s = t.ownerSVGElement.getBoundingClientRect(); return r.width > 0 && (r.left < s.left - 2 \
             || r.right > s.right + 2) }).map(t => t.textContent)",
        );
        assert_eq!(outside, serde_json::json!([]), "{name}");
    }
    assert!(corners[0] > 230 && corners[1] < 50, "{corners:?}");
    assert!(corners[2] > 230 && corners[3] < 50, "{corners:?}");

    // The first stop of the tab key leads past the navigation.
    let skip = browser.evaluate("document.querySelector('a, button, [tabindex]').hash");
    assert_eq!(skip, "#main");
    let landmarks = browser.evaluate(
        "['header', 'nav[aria-label]', 'main', 'footer', 'h1'].map(s => document.querySelectorAll(s).length)",
    );
    assert_eq!(landmarks, serde_json::json!([1, 1, 1, 1, 1]));

    let pdf = browser.pdf();
    keep("report.pdf", &pdf);
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 50_000, "{} bytes", pdf.len());

    let (errors, requests) = troubles(&browser);
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(requests.len() >= 4, "each opening is one");
    let own = format!("file://{}", page.display());
    assert!(requests.iter().all(|url| *url == own || url.starts_with("data:")), "{requests:?}");
}

//! The colours of the page: light and dark, told apart without colour vision, and with
//! the contrast that WCAG 2.1 AA asks for (4.5 of text, 3 of shapes).

use std::fmt::Write as _;

/// A hue with a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// The first of several, such as number formats.
    Blue,
    /// The second.
    Vermilion,
    /// A third.
    Green,
    /// A fourth.
    Purple,
    /// A fifth.
    Amber,
    /// What is only there to compare with: the paper, a baseline, the floor.
    Grey,
    /// That of the text.
    Text,
}

impl Ink {
    /// Those with a colour of their own.
    pub(super) const ALL: [Self; 6] =
        [Self::Blue, Self::Vermilion, Self::Green, Self::Purple, Self::Amber, Self::Grey];

    /// The class that sets `--ink` and `--on-ink`.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Vermilion => "vermilion",
            Self::Green => "green",
            Self::Purple => "purple",
            Self::Amber => "amber",
            Self::Grey => "grey",
            Self::Text => "text",
        }
    }
}

/// The colours of one scheme, `#rrggbb`.
struct Scheme {
    page: &'static str,
    panel: &'static str,
    text: &'static str,
    quiet: &'static str,
    rule: &'static str,
    link: &'static str,
    warn: &'static str,
    warn_panel: &'static str,
    /// Each ink, in the order of [`Ink::ALL`].
    inks: [&'static str; 6],
    /// Text on a shape of any ink.
    on_ink: &'static str,
}

const LIGHT: Scheme = Scheme {
    page: "#fdfcfa",
    panel: "#f4f2ee",
    text: "#1c1e21",
    quiet: "#5c6066",
    rule: "#dedad3",
    link: "#0a5c94",
    warn: "#9a3b00",
    warn_panel: "#fcefe4",
    inks: ["#0a67a8", "#b94505", "#0b7a5c", "#9a4a86", "#7f5a00", "#666b72"],
    on_ink: "#ffffff",
};

const DARK: Scheme = Scheme {
    page: "#14161a",
    panel: "#1d2025",
    text: "#e8e6e1",
    quiet: "#a7abb2",
    rule: "#343840",
    link: "#7cc0f2",
    warn: "#f5a36a",
    warn_panel: "#2f2118",
    inks: ["#62b2ee", "#f08c52", "#43c39d", "#d692c4", "#dfb248", "#9ba1a9"],
    on_ink: "#0d0f12",
};

impl Scheme {
    fn properties(&self) -> String {
        let Self { page, panel, text, quiet, rule, link, warn, warn_panel, inks, on_ink } = self;
        let mut css = format!(
            "--page:{page};--panel:{panel};--text:{text};--quiet:{quiet};--rule:{rule};\
             --link:{link};--warn:{warn};--warn-panel:{warn_panel};--on-ink:{on_ink};"
        );
        for (ink, colour) in Ink::ALL.iter().zip(inks) {
            // Writing to a string cannot fail.
            let _ = write!(css, "--{}:{colour};", ink.class());
        }
        css
    }
}

/// The style sheet's colours. Paper is white, whatever the screen was.
pub(super) fn css() -> String {
    let mut css = format!(
        ":root{{color-scheme:light dark;{}}}\
         @media screen and (prefers-color-scheme:dark){{:root{{{}}}}}",
        LIGHT.properties(),
        DARK.properties()
    );
    for ink in Ink::ALL {
        let name = ink.class();
        let _ = write!(css, ".{name}{{--ink:var(--{name})}}");
    }
    css.push_str(".text{--ink:var(--text)}");
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(colour: &str) -> [f64; 3] {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        [1, 3, 5].map(channel)
    }

    /// As WCAG 2.1 defines it.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let [r, g, b] = channels(colour);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn contrast_is_that_of_the_standard() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        assert!((contrast("#777777", "#ffffff") - 4.48).abs() < 0.01);
    }

    #[test]
    fn text_and_shapes_have_enough_contrast() {
        for scheme in [LIGHT, DARK] {
            for ground in [scheme.page, scheme.panel] {
                for text in [scheme.text, scheme.quiet, scheme.link, scheme.warn] {
                    assert!(contrast(text, ground) >= 4.5, "{text} on {ground}");
                }
                // Labels have the ink of what they label.
                for ink in scheme.inks {
                    assert!(contrast(ink, ground) >= 4.5, "{ink} on {ground}");
                }
            }
            for text in [scheme.text, scheme.warn] {
                assert!(contrast(text, scheme.warn_panel) >= 4.5, "{text} in a warning");
            }
            for ink in scheme.inks {
                assert!(contrast(scheme.on_ink, ink) >= 4.5, "text on {ink}");
            }
        }
    }

    /// Machado et al. 2009, severity 1, on linear light: deuteranopia and protanopia.
    const BLINDNESS: [[[f64; 3]; 3]; 2] = [
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
    ];

    /// CIE 1976 distance of two linear colours under D65.
    fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
        let lab = |[r, g, b]: [f64; 3]| {
            let f = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
            let x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.950_47);
            let y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
            let z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.088_83);
            [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
        };
        let (a, b) = (lab(a), lab(b));
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn the_colours_that_carry_meaning_differ_without_red_or_green() {
        for scheme in [LIGHT, DARK] {
            for matrix in BLINDNESS {
                let seen = |colour: &str| {
                    let light = channels(colour);
                    matrix.map(|row| {
                        row.iter().zip(light).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0)
                    })
                };
                // Formats and the paper; the other inks are always beside their names.
                let [blue, vermilion, .., grey] = scheme.inks.map(seen);
                for (a, b) in [(blue, vermilion), (blue, grey), (vermilion, grey)] {
                    assert!(distance(a, b) > 20.0, "{a:?} {b:?}");
                }
            }
        }
    }
}

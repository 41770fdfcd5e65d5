//! How fast a machine is at what a floor is made of.

use party::config::Conditions;
use serde::{Deserialize, Serialize};
use spdz::plan::NumberFormat;

use crate::stats::median;

/// What is fast about a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Speeds {
    /// What two processes need to send each other
    /// [`SMALL`](super::transport::SMALL) bytes,
    /// microseconds.
    pub exchange_micros: f64,
    /// What goes in each direction while both are busy, 10^9 bytes a second.
    pub gigabytes_per_second: f64,
    /// Of large square matrices.
    pub products: Vec<ProductSpeed>,
}

impl Speeds {
    /// The same over a network that is imitated: messages of two parties cross, so that an
    /// exchange takes one way longer.
    #[must_use]
    pub fn over(&self, conditions: &Conditions) -> Self {
        let bandwidth = conditions.bandwidth_mbps.map_or(f64::INFINITY, |mbps| mbps / 8e3);
        Self {
            exchange_micros: self.exchange_micros + conditions.one_way().as_secs_f64() * 1e6,
            gigabytes_per_second: self.gigabytes_per_second.min(bandwidth),
            products: self.products.clone(),
        }
    }
}

/// How fast one core multiplies matrices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductSpeed {
    /// The number format.
    pub format: NumberFormat,
    /// 10^9 multiplications and additions of elements a second.
    pub gigamacs_per_second: f64,
}

/// The floor of a cell, measured just before one of its trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beside {
    /// What the messages and products within the cell's runtime alone would take, milliseconds.
    pub floor_ms: f64,
    /// What it comes from, with products in the cell's format.
    pub speeds: Speeds,
}

/// Speeds that were measured at several moments as one: the median of each.
#[must_use]
pub fn typical<'a>(measured: impl IntoIterator<Item = &'a Speeds>) -> Option<Speeds> {
    let measured: Vec<&Speeds> = measured.into_iter().collect();
    let median_of =
        |of: fn(&Speeds) -> f64| median(measured.iter().map(|speeds| of(speeds)).collect());
    let products = NumberFormat::ALL.into_iter().filter_map(|format| {
        let products = measured.iter().flat_map(|speeds| &speeds.products);
        let found: Vec<f64> = products
            .filter(|product| product.format == format)
            .map(|product| product.gigamacs_per_second)
            .collect();
        (!found.is_empty()).then(|| ProductSpeed { format, gigamacs_per_second: median(found) })
    });
    (!measured.is_empty()).then(|| Speeds {
        exchange_micros: median_of(|speeds| speeds.exchange_micros),
        gigabytes_per_second: median_of(|speeds| speeds.gigabytes_per_second),
        products: products.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_of_several_moments_are_one() {
        let speeds = |exchange_micros, format, gigamacs_per_second| Speeds {
            exchange_micros,
            gigabytes_per_second: 1.0,
            products: vec![ProductSpeed { format, gigamacs_per_second }],
        };
        assert_eq!(typical(&[]), None);
        let measured = [
            speeds(10.0, NumberFormat::Int64, 20.0),
            speeds(90.0, NumberFormat::Int100, 9.0),
            speeds(12.0, NumberFormat::Int64, 20.0),
        ];
        let typical = typical(&measured).unwrap();
        assert_eq!(typical.exchange_micros, 12.0);
        let products: Vec<_> =
            typical.products.iter().map(|p| (p.format, p.gigamacs_per_second)).collect();
        assert_eq!(products, [(NumberFormat::Int64, 20.0), (NumberFormat::Int100, 9.0)]);
    }
}

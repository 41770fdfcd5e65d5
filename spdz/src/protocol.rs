//! What a protocol is to those who run it: its roles, who connects to whom, and how a graph
//! becomes the plan that all roles follow.

use crate::channel::{Name, Role};
use crate::graph::Graph;
use crate::plan::{Plan, PlanError};
use crate::ring::{NumberFormat, Truncation};

/// A protocol for computations between players.
pub trait Protocol {
    /// The protocol's own roles, without those of players.
    const OWN_ROLES: &'static [Role];

    /// The roles that a role connects to; those wait for it.
    fn dials(role: Role) -> &'static [Role];

    /// The steps that all roles follow.
    ///
    /// # Errors
    /// If the protocol cannot compute the graph in this format.
    fn compile(
        graph: &Graph,
        format: NumberFormat,
        truncation: Truncation,
    ) -> Result<Plan, PlanError>;

    /// All roles of a computation: the protocol's own, and the players.
    #[must_use]
    fn roles(players: &[Name]) -> Vec<Role> {
        let players = players.iter().copied().map(Role::Player);
        Self::OWN_ROLES.iter().copied().chain(players).collect()
    }

    /// The roles of a computation that connect to a role.
    #[must_use]
    fn accepts(role: Role, players: &[Name]) -> Vec<Role> {
        let dialling = Self::edges(players).into_iter().filter(|edge| edge.accepts == role);
        dialling.map(|edge| edge.dials).collect()
    }

    /// The connections of a computation: who dials whom.
    #[must_use]
    fn edges(players: &[Name]) -> Vec<Edge> {
        let edges =
            |dials: Role| Self::dials(dials).iter().map(move |&accepts| Edge { dials, accepts });
        Self::roles(players).into_iter().flat_map(edges).collect()
    }
}

/// A connection between two roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Who connects.
    pub dials: Role,
    /// Who waits for it.
    pub accepts: Role,
}

/// The two-server SPDZ variant of the paper (Dahl et al. 2018): two servers that compute on
/// shares, and a producer of correlated randomness.
#[derive(Clone, Copy, Debug)]
pub struct Spdz;

impl Protocol for Spdz {
    const OWN_ROLES: &'static [Role] = &[Role::Server0, Role::Server1, Role::Producer];

    fn dials(role: Role) -> &'static [Role] {
        match role {
            Role::Server0 => &[],
            Role::Server1 => &[Role::Server0],
            Role::Producer | Role::Player(_) => &[Role::Server0, Role::Server1],
        }
    }

    fn compile(
        graph: &Graph,
        format: NumberFormat,
        truncation: Truncation,
    ) -> Result<Plan, PlanError> {
        Plan::compile(graph, format, truncation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_that_exchange_messages_have_one_connection() {
        let players = [Name::MODEL_OWNER, Name::CLIENT];
        let edges = Spdz::edges(&players);
        let between = |x, y| {
            let joins = |edge: &&Edge| {
                [(edge.dials, edge.accepts), (edge.accepts, edge.dials)].contains(&(x, y))
            };
            edges.iter().filter(joins).count()
        };
        let servers = [Role::Server0, Role::Server1];
        assert_eq!(between(servers[0], servers[1]), 1);
        for server in servers {
            for other in [Role::Producer, Role::MODEL_OWNER, Role::CLIENT] {
                assert_eq!(between(server, other), 1, "{server} and {other}");
            }
        }
        assert_eq!(edges.len(), 7);
        assert_eq!(Spdz::roles(&players).len(), 5);
    }
}

"""Small graphs."""

import graph_fixtures

graph_builder, graphs = graph_fixtures.graph_builder, graph_fixtures.graphs

"""What a flow means: nodes, batch nodes, flows, and what can be said about them before they run."""

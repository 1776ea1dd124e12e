"""Names to models: specs, registry, Hub, data, modules, graphs, bundles."""

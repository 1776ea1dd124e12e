"""The model zoo: specs, registry, Hub, data, modules, graphs, bundles."""

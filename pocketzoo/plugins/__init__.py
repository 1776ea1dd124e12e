"""The plugins that ship with pocketzoo, declared through the public hooks. Calling the package lists all plugins."""

from pocketzoo.core.callable_module import make_callable

make_callable(__name__, "pocketzoo.zoo.catalog.registry", "list_plugins")

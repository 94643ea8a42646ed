"""Imported by every Python that has this folder in PYTHONPATH: CPU devices are used as GPUs are; see gpu_like.py."""

import importlib.abc
import importlib.machinery
import sys


class _Kinds(dict):
    """The kinds of devices; code that looks one up has imported TensorFlow."""

    def __getitem__(self, _):
        import gpu_like

        gpu_like.no_merge_call().__enter__()
        return gpu_like.KIND


class _Finder(importlib.abc.MetaPathFinder):
    """Puts `_Kinds` into `trainer.device_kind` when that module is imported, and imports nothing itself."""

    def find_spec(self, name, path, target=None):
        if name != "trainer.device_kind":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def with_kinds(module):
            execute(module)
            module.KINDS = _Kinds()

        spec.loader.exec_module = with_kinds
        return spec


sys.meta_path.insert(0, _Finder())

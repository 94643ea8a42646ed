"""Which kernels the TensorFlow wheel has for an op on GPUs: from its own list, which needs no GPU."""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels

_CALLS = ("StatefulPartitionedCall", "PartitionedCall")


@functools.cache
def _kernels(op):
    return tuple(kernels.get_registered_kernels_for_op(op).kernel)


@functools.cache
def register_xla():
    """Puts XLA's kernels on the list: they are there once a function was compiled."""
    tf.function(tf.negative, jit_compile=True)(tf.constant(1.0))


def _fits(kernel, node):
    for constraint in kernel.constraint:
        if constraint.name in node.attr:
            value = node.attr[constraint.name]
            types = [value.type] if value.WhichOneof("value") == "type" else list(value.list.type)
            if any(kind not in constraint.allowed_values.list.type for kind in types):
                return False
    return True


def has_kernel(node, *devices):
    """Whether a node has a kernel for one of the device types, for the types of its tensors."""
    return any(kernel.device_type in devices and _fits(kernel, node) for kernel in _kernels(node.op))


def described(node):
    """A node as a user reads it: its op and the types of its tensors."""
    types = {name: tf.as_dtype(value.type).name for name, value in node.attr.items()
             if value.WhichOneof("value") == "type" and value.type}
    return node.op + "".join(f" {name}={kind}" for name, kind in sorted(types.items()))


def functions_of(concrete):
    """Name to `FunctionDef` of all that a traced function calls."""
    return {function.signature.name: function for function in concrete.graph.as_graph_def().library.function}


def called(node):
    """Names of the functions that a node calls."""
    return [part.name for value in node.attr.values()
            for part in ([value.func] if value.WhichOneof("value") == "func" else value.list.func)]


def loop_body(concrete):
    """The nodes of the body of a traced function's loop, outside of all functions that it calls."""
    functions = functions_of(concrete)

    def find(nodes):
        for node in nodes:
            if node.op in ("While", "StatelessWhile"):
                yield node.attr["body"].func.name
            elif node.op in _CALLS:
                for name in called(node):
                    yield from find(functions[name].node_def)

    return functions, list(functions[next(find(concrete.graph.as_graph_def().node))].node_def)


def split_by_xla(functions, nodes):
    """(nodes that run as kernels of their own, nodes inside compiled programs) of nodes and all that they call."""
    outside, inside = [], []

    def walk(nodes, compiled):
        for node in nodes:
            below = called(node)
            within = compiled or node.attr["_XlaMustCompile"].b
            if not (node.op in _CALLS and below):
                (inside if compiled else outside).append(node)
            for name in below:
                walk(functions[name].node_def, within or functions[name].attr["_XlaMustCompile"].b)

    walk(nodes, False)
    return outside, inside

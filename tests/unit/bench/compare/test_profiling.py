"""What the profiler reads of callgrind_annotate and strace."""

from kaa_bench.compare.callgrind import read_annotation
from kaa_bench.compare.profiling import read_system_calls

ANNOTATION = """\
--------------------------------------------------------------------------------
Ir
--------------------------------------------------------------------------------
90,000 (100.0%)  PROGRAM TOTALS

--------------------------------------------------------------------------------
Ir               file:function
--------------------------------------------------------------------------------
60,000 (66.67%)  gateway/kp/uplink.c:__pyx_f_forward [/srv/gateway/kp/uplink.cpython-311-x86_64-linux-gnu.so]
20,000 (22.22%)  ???:_PyObject_Malloc [/usr/lib/libpython3.11.so.1.0]
 8,000 ( 8.89%)  ???:_PyObject_Malloc'2 [/usr/lib/libpython3.11.so.1.0]
 2,000 ( 2.22%)  ./malloc/malloc.c:free
"""

CALLS = """\
strace: Process 1 attached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           sendmmsg
 40.00    0.000400           4       120         3 recvmmsg
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           5       220         3 total
"""


def test_instructions_are_summed_by_module_and_function() -> None:
    assert read_annotation(ANNOTATION) == {
        ("uplink", "__pyx_f_forward"): 60_000,
        ("libpython3", "_PyObject_Malloc"): 28_000,
        ("unknown", "free"): 2_000,
    }


def test_system_calls_are_counted_by_name() -> None:
    assert read_system_calls(CALLS) == {"sendmmsg": 100, "recvmmsg": 120}

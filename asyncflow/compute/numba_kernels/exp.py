# mypy: ignore-errors
"""exp as arithmetic that LLVM can vectorise; numba's own calls a scalar library, five times slower.

x = n·ln 2 + r with |r| ≤ ln 2 / 2: n comes from adding and taking off 1.5·2^23 (float32) or 1.5·2^52, whose
last bits then hold the integer, so NaN meets no conversion to an integer; ln 2 is taken off in two parts;
exp(r) is a Taylor polynomial; and 2^n is put together from bits in two factors, so that results below the
normal numbers come out too. No fast-math flag but `contract` may be set here: the two parts of ln 2 would be
merged.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, register_jitable

OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
SUMS = {**OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}


def _caster(source, target):
    @intrinsic
    def cast(context, x):
        def code(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), code

    return cast


bits32, float32 = _caster(types.float32, types.int32), _caster(types.int32, types.float32)
bits64, float64 = _caster(types.float64, types.int64), _caster(types.int64, types.float64)

F = np.float32
_MAGIC32, _LOG2E32 = F(12582912.0), F(1 / math.log(2))
_HIGH32, _LOW32 = F(0.693359375), F(-2.12194440e-4)
_T32 = tuple(F(1 / math.factorial(i)) for i in range(8))
_LEAST32, _MOST32 = F(-104.0), F(89.0)

_MAGIC64, _LOG2E64 = 6755399441055744.0, 1 / math.log(2)
_HIGH64, _LOW64 = 6.93145751953125e-1, 1.42860682030941723212e-6
_T64 = tuple(1 / math.factorial(i) for i in range(14))
_A32, _B32, _C32, _D32, _E32, _F32, _G32, _H32 = _T32


@register_jitable
def exp32(x):
    """exp of a float32; relative error below 2 units in the last place."""
    x = _LEAST32 if x < _LEAST32 else x
    x = _MOST32 if x > _MOST32 else x
    t = x * _LOG2E32 + _MAGIC32
    n = t - _MAGIC32
    r = (x - n * _HIGH32) - n * _LOW32
    p = _H32
    p = p * r + _G32
    p = p * r + _F32
    p = p * r + _E32
    p = p * r + _D32
    p = p * r + _C32
    p = p * r + _B32
    p = p * r + _A32
    whole = bits32(t) - np.int32(0x4B400000)
    half = whole >> np.int32(1)
    rest = whole - half
    return (
        p * float32((half + np.int32(127)) << np.int32(23)) * float32((rest + np.int32(127)) << np.int32(23))
    )


@register_jitable
def exp64(x):
    """exp of a float64; relative error below 2 units in the last place."""
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    t = x * _LOG2E64 + _MAGIC64
    n = t - _MAGIC64
    r = (x - n * _HIGH64) - n * _LOW64
    p = _T64[13]
    p = p * r + _T64[12]
    p = p * r + _T64[11]
    p = p * r + _T64[10]
    p = p * r + _T64[9]
    p = p * r + _T64[8]
    p = p * r + _T64[7]
    p = p * r + _T64[6]
    p = p * r + _T64[5]
    p = p * r + _T64[4]
    p = p * r + _T64[3]
    p = p * r + _T64[2]
    p = p * r + _T64[1]
    p = p * r + _T64[0]
    whole = bits64(t) - np.int64(0x4338000000000000)
    half = whole >> np.int64(1)
    rest = whole - half
    return (
        p
        * float64((half + np.int64(1023)) << np.int64(52))
        * float64((rest + np.int64(1023)) << np.int64(52))
    )


@njit(**OPTIONS)
def exp_into32(x, shift, out):
    """out = exp(x - shift), one row."""
    for j in range(x.shape[0]):
        out[j] = exp32(x[j] - shift)


@njit(**OPTIONS)
def exp_into64(x, shift, out):
    """out = exp(x - shift), one row."""
    for j in range(x.shape[0]):
        out[j] = exp64(x[j] - shift)


@njit(**SUMS)
def row_sum(x):
    """The sum of a row, in lanes."""
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += x[j]
    return total


@njit(**OPTIONS)
def largest(bits, mask):
    """The largest number of a row, from its bits as integers; positive NaN counts as larger than infinity.

    A maximum of floats is vectorised only under the promise that there is no NaN; one of integers always.
    Bits of negative floats are turned round, so that the integers have the order of the floats.
    """
    best = bits[0] ^ ((bits[0] >> (bits.itemsize * 8 - 1)) & mask)
    for j in range(bits.shape[0]):
        value = bits[j] ^ ((bits[j] >> (bits.itemsize * 8 - 1)) & mask)
        best = value if value > best else best
    return best ^ ((best >> (bits.itemsize * 8 - 1)) & mask)

"""Writes a GGUF again with all of its matrices in one type, so that engines are compared at the same type.

    pip install gguf && python retype_gguf.py MODEL.gguf OUT.gguf bf16|f16|f32|q8_0

Values are what the file's own types stand for, rounded once; vectors (norms) stay in f32, as llama.cpp has them.
"""

import os
import sys

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize


def retype(source, out, name):
    wanted = GGMLQuantizationType[name.upper()]
    reader = GGUFReader(source)
    writer = GGUFWriter(f"{out}.part", reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue  # written by the writer itself
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        kind = wanted if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(f"{out}.part", out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    retype(*sys.argv[1:])

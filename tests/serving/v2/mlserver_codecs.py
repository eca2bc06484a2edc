"""What MLServer's own client codecs write and read; runs in an interpreter that can import them, and knows no Dubio.

python mlserver_codecs.py encode              requests by name, as JSON, of the rows on standard input
python mlserver_codecs.py decode CODEC        the answer on standard input, as the codec reads it
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec, StringRequestCodec
from mlserver.codecs.base64 import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, Parameters


def encode(given: dict[str, Any]) -> dict[str, Any]:
    """Requests with the rows of each kind of input."""
    numbers = np.array(given["row"])
    frame = pd.DataFrame(given["table"])
    requests = {
        "row by NumpyRequestCodec": NumpyRequestCodec.encode_request(numbers),
        "row by NumpyCodec": InferenceRequest(inputs=[NumpyCodec.encode_input("input", numbers.astype(np.float32))]),
        "text by StringRequestCodec": StringRequestCodec.encode_request(given["text"]),
        "text by StringCodec": InferenceRequest(
            id="r-1",
            parameters=Parameters(content_type="str", headers={"of": "theirs"}),
            inputs=[StringCodec.encode_input("input", given["text"], use_bytes=False)],
        ),
        "table by PandasCodec": PandasCodec.encode_request(frame),
        # Objects that are not all texts are written as JSON in BYTES.
        "table by PandasCodec, objects": PandasCodec.encode_request(frame.astype({"age": object}), use_bytes=False),
        "pixels by Base64Codec": InferenceRequest(
            inputs=[Base64Codec.encode_input("input", [bytes.fromhex(file) for file in given["pixels"]])]
        ),
    }
    return {name: json.loads(request.model_dump_json(exclude_none=True)) for name, request in requests.items()}


def decode(codec: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name."""
    response = InferenceResponse.model_validate(answer)
    if codec == "PandasCodec":  # which holds one number a row
        frame = PandasCodec.decode_response(response)
        return {str(name): [str(value) for value in frame[name]] for name in frame}
    outputs = {}
    for output in response.outputs:
        kind = StringCodec if output.datatype == "BYTES" else NumpyCodec
        values = kind.decode_output(output)
        outputs[output.name] = values if isinstance(values, list) else values.tolist()
    return outputs


if __name__ == "__main__":
    document = json.load(sys.stdin)
    json.dump(encode(document) if sys.argv[1] == "encode" else decode(sys.argv[2], document), sys.stdout)

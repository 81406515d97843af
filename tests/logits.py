"""By how much vLLM's log-probabilities of a prompt differ from transformers' in float32, as `RESULT number`.

A process of its own, `python -m tests.logits`: vLLM keeps what memory it takes.
"""

import torch

from cluster.backfill.encoder import Encoder
from cluster.models.resolve import resolve_encoder
from cluster.models.sources import base_folder
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile


def main() -> None:
    from transformers import AutoModelForCausalLM
    from vllm import SamplingParams

    profile = resolve_encoder(load_profile("encoders", "extractor-135m", EncoderProfile))
    encoder = Encoder(profile)
    ids = encoder.prompt([], [{"role": "user", "text": "I live in Oslo and I cannot eat nuts."}], None)
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    output = encoder.engine.llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)[0]
    ours = [next(iter(entry.values())).logprob for entry in output.prompt_logprobs[1:]]
    model = AutoModelForCausalLM.from_pretrained(base_folder(profile), dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    theirs = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
    print("RESULT", max(abs(a - b) for a, b in zip(ours, theirs, strict=True)))


if __name__ == "__main__":
    main()

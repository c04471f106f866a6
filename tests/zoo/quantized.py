"""The quantized checkpoints that were tried, for docs/coverage.md."""

QUANTIZED = """\
## Quantized checkpoints

*kept*: by default (`--quantized keep`) stages hold the stored tensors and compute the weight at each use. With
`--quantized dequantize`, and where a weight cannot be kept (two modules share it; experts are joined from tensors with
one scale each; a note names it), it is dequantized while stages are written, a block of rows at a time, and
`--weights link` is refused. *Difference* is the largest of any element of a dequantized weight, at several
sizes, in float16, bfloat16 or float32. Activations are never quantized; a note says where the checkpoint's own library
does it.

| method | form | kept | difference | compared with |
|---|---|---|--:|---|
| fp8 | blocks, `weight_scale_inv`; experts one by one | yes | 0 | transformers, `dequantize=True` |
| fp8 | blocks that do not divide the weight | yes | 0 | its formula: transformers refuses these |
| fp8 | a scale a weight, `weight_scale`, as vLLM's (AutoFP8) and of transformers' embeddings | yes | 0 | its formula |
| mxfp8 | exponents of 32 columns | yes | 0 | its formula |
| w8a8_fp8, w8a8_int8, blockwise_int8 | by channel, and in blocks, as SGLang's | yes | 0 | its formula |
| compressed-tensors | float-quantized: by tensor, channel, block; mxfp8 | yes | 0 | compressed-tensors 0.20 |
| compressed-tensors | int-quantized (W8A8), symmetric and not | yes | 0 | compressed-tensors 0.20 |
| compressed-tensors | pack-quantized, 2 to 8 bits (W4A16, …), symmetric and not | yes | 0 | compressed-tensors 0.20 |
| compressed-tensors | the same with columns in any order (`weight_g_idx`) | yes | 0 | its formula |
| compressed-tensors | nvfp4-pack-quantized, mxfp4-pack-quantized | yes | 0 | compressed-tensors 0.20 |
| modelopt | FP8, NVFP4; also by `hf_quant_config.json` | yes | 0 | its formula |
| modelopt | FP8, experts in one tensor (Llama 4) | no | 0 | its formula |
| modelopt | W4A16_AWQ, SmoothQuant of INT8, with inputs scaled by channel | yes | 1e-8 | nvidia-modelopt 0.47 |
| modelopt | W4A8_AWQ, whose weights are rounded to FP8 | yes | 1e-8 | nvidia-modelopt 0.47 |
| modelopt | MXFP8, W8A16, W4A16_NVFP4, W4A8_NVFP4_FP8, W4A8_MXFP4_FP8 | yes | 0 | its formula |
| fbgemm_fp8 | by row | yes | 0 | its formula |
| gptq | 2 to 8 bits, formats 1 and 2, `desc_act`, layers of other bits (`dynamic`) | yes | 0 | its formula |
| auto-round | 2 to 8 bits, in its own layout and in GPTQ's | yes | 5e-4 | auto-round 0.16, logits in float16 |
| auto-round | 4 bits in AWQ's layout | yes | 0 | its formula |
| awq | gemm, 4 bits | yes | 0 | autoawq 0.2.9 |
| quark | FP8; INT8; INT4 and UINT4 by group; MXFP4 | yes | 0 | the packing of amd-quark 0.13 |
| hqq | 1, 2, 3, 4 and 8 bits, groups of rows or columns | yes | 0 | the packing of hqq 0.2.8 |
| mxfp4 | gpt-oss | yes | 0 | transformers, `dequantize=True` |
| bitsandbytes | nf4 and fp4, double quantization | yes | 0 | bitsandbytes 0.50 |
| bitsandbytes | int8 | yes | 0 | bitsandbytes 0.50 |
| torchao | int8, int2, int4, fp8, in safetensors and files of torch.save | yes | 0 | torchao 0.18, logits |
| torchao | MXFP8 and NVFP4, scales in the order of tensor cores or not | yes | 0 | its formula; NVFP4: torchao 0.18 |
| torchao | int4 weights, the plain packing and in tiles (`tile_packed_to_4d`), in safetensors | yes | 0 | its formula |

bitsandbytes' own kernel for CPUs was left out where it is wrong: rows that its blocks do not divide. Kept GPTQ and AWQ
weights lie transposed in memory, as their libraries have them: results differ from those of a dequantized file by
rounding, 5e-4 in float16.

Where a library scales what a layer takes by channel first, as AWQ and SmoothQuant of ModelOpt and of torchao do, these
scales are taken into the weight.

Refused by name: GPTQ of other bits or formats, AWQ in gemv, AWQ's scales of what activations return, ModelOpt's
SVDQuant, marlin-24, mxfp6, sparse-bitmask, rotations of activations (`transform_config`), GPTQ in words of 8 or 16
bits, AutoRound's weights other than integers, torchao's int4 that is shuffled for one kernel (`preshuffled`, whose
order is not documented), and methods not in the table (AQLM, EETQ, VPTQ, SpQR, FP-Quant, …).

*GGUF files* (a folder with one, or the file itself, whole or split; `pip install 'stagecut[gguf]'`) are dequantized by
the package `gguf` while stages are written, a block of rows or an expert at a time, of GPT-2, Bloom, Mamba and Falcon a
tensor. Logits differ by 0 from those of the model that a file was made of (rows below), and from transformers' own
reading in every form that the package dequantizes (F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ1 to IQ4, MXFP4, NVFP4,
TQ1 and TQ2), but where transformers 5.17 leaves out what a file says, and gives other logits or fails: scaled positions
(linear, YaRN, Llama 3.1's factors), the part of a head that is turned, biases, windows of Phi-3, heads of Qwen3, the
scale of Gemma's queries, positions of GPT-2, groups of Falcon, Mixtral, gpt-oss. A tensor that the model has no place
for is refused, and so are architectures that transformers has no reading for (Gemma 1, Phi-2, Cohere, OLMo, Granite, …)
and T5.

*On GPUs*, in a decoder's steps, linear layers over fp8, int8, packed rows and GPTQ read their weights as they are
stored: the pass fuse-quantized finds them, node for node, and stage files import `quantized_linear`, a kernel in Triton
for up to 64 tokens, from the file of this name beside them. Layers of one input, as queries, keys and values, are one
product, whose weights are laid side by side when they are loaded; those of GPTQ are turned. The kernel sums in float32
and rounds no weight before the product, so results differ from those of plain operators by rounding. AWQ, FP4,
bitsandbytes, torchao's int4, columns in any order and experts are dequantized at each use there, too. `_scaled_mm` and
`_weight_int4pack_mm` are not used: the first quantizes activations, the second wants weights in another order, and
zeros that it rounds otherwise.

Codes times scales (fp8, int8 without zeros) are one operator of graphs, `stagecut::dequantized`, and one function of a
stage file, `dequantize`, which each layer calls; other weights are computed node by node.
"""

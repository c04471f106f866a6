"""Texts that a decoder continues, token by token, many at once.

In the order in which a prompt meets them:

    options       how a text is continued: its length, sampling, what ends it
    token_rules   which tokens may follow: bad words, repeated n-grams, the least length
    flags         the flags of the command line
    __main__      the command line
    text          texts as ids, and back
    media         images and sounds that stand before a text
    prompts       prompts and the options of a call, checked
    generate      `Pipeline.generate`: prompts -> what `model.generate` returns, or a stream of steps
    continuation  the continuation of one prompt, as it comes
    generator     the thread that sends batches to the stages and hands out what they return
    outputs       outputs of a step that a device may still compute, and their way to the host and the next step
    padding       steps padded to few shapes, which CUDA graphs are recorded for
    stages        the stages, as the thread that continues texts sees them
    scheduler     the choice of texts for the next batch: admission by free pages, prefill in chunks, preemption
    sequences     a text in progress: its tokens, its pages, how much of it the pools hold
    pages         pages of the pools: who owns which; pages of prefixes that several texts have in common
    batches       texts -> the tensors of a batch
    widths        widths of sources that an encoder's code takes
"""

"""Orders of the columns of x, in which kernels take them."""

# By the bits of codes: the digits that number the columns of 16 words, and in which order those of a piece have them.
_DIGITS = {4: ((4, 2, 2, 2, 2, 2), (-2, -1, -4, -5, -6, -3)), 0: ((4, 2, 2, 2, 2), (-2, -3, -4, -5, -1))}


def columns_in_order(x, ordered, words, bits):
    """x `[…, columns]` with its columns ordered so."""
    if ordered == "words":
        return x.unflatten(-1, (words, -1)).mT.flatten(-2)
    return _permuted(x, *_DIGITS[bits]) if ordered else x


def as_it_was(x, ordered, words, bits):
    """The same x before its columns were ordered so."""
    if ordered == "words":
        return x.unflatten(-1, (-1, words)).mT.flatten(-2)
    if not ordered:
        return x
    digits, order = _DIGITS[bits]
    back = [order.index(place - len(order)) - len(order) for place in range(len(order))]
    return _permuted(x, [digits[place] for place in order], back)


def _permuted(x, digits, order):
    """x with the digits of its columns in another order, within as many columns as they number."""
    return x.unflatten(-1, (-1, *digits)).permute(*range(x.dim()), *order).flatten(-1 - len(order))

/* Functions compiled for a processor that has more than the one the rest is compiled for. */
#ifndef XNOR_TARGET_H
#define XNOR_TARGET_H

#define XNOR_PRAGMA(...) _Pragma(#__VA_ARGS__)
#ifdef __clang__
#define XNOR_BEGIN_TARGET(features) \
    XNOR_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define XNOR_END_TARGET XNOR_PRAGMA(clang attribute pop)
#else
#define XNOR_BEGIN_TARGET(features) XNOR_PRAGMA(GCC push_options) XNOR_PRAGMA(GCC target(features))
#define XNOR_END_TARGET XNOR_PRAGMA(GCC pop_options)
#endif

#endif

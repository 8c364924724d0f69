/* include messaging.h, not messaging_impl.h */
// same
#include "messaging_impl.h"

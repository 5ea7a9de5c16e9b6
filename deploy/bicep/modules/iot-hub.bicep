// A new IoT hub that routes the events of its twins. Do not use it for an existing hub: a deployment replaces all properties of the hub,
// including those that this file does not contain.

@description('Region of the hub.')
param location string

@description('Name of the hub, which is part of its host name.')
@minLength(3)
@maxLength(50)
param hubName string

@description('Tier. The Basic tiers have no twins.')
@allowed([
  'S1'
  'S2'
  'S3'
])
param skuName string

@description('Number of units of the tier.')
@minValue(1)
@maxValue(200)
param units int

@description('Resource id of the identity with which the hub sends events. It needs the role Azure Event Hubs Data Sender before the hub is created.')
param routingIdentityId string

@description('Fully qualified name of the Event Hubs namespace.')
param namespaceHost string

@description('Name of the Event Hub.')
param eventHubName string

@description('Minimum TLS version. Empty: the default of IoT Hub.')
@allowed([
  ''
  '1.2'
])
param minTlsVersion string

@description('Tags of the hub.')
param tags object

var endpointName = 'twinsync'

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' = {
  name: hubName
  location: location
  tags: tags
  sku: {
    name: skuName
    capacity: units
  }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${routingIdentityId}': {}
    }
  }
  properties: {
    minTlsVersion: empty(minTlsVersion) ? null : minTlsVersion
    publicNetworkAccess: 'Enabled'
    // Disables the shared access policies of the hub. The keys and certificates of devices still work.
    disableLocalAuth: true
    routing: {
      endpoints: {
        eventHubs: [
          {
            name: endpointName
            authenticationType: 'identityBased'
            endpointUri: 'sb://${namespaceHost}'
            entityPath: eventHubName
            identity: {
              userAssignedIdentity: routingIdentityId
            }
            resourceGroup: resourceGroup().name
            subscriptionId: subscription().subscriptionId
          }
        ]
      }
      // No filter: a condition on the body is false for a change that removes the property, so these changes would be lost.
      routes: [
        {
          name: 'twinsync-lifecycle'
          source: 'DeviceLifecycleEvents'
          condition: 'true'
          endpointNames: [
            endpointName
          ]
          isEnabled: true
        }
        {
          name: 'twinsync-twin-changes'
          source: 'TwinChangeEvents'
          condition: 'true'
          endpointNames: [
            endpointName
          ]
          isEnabled: true
        }
      ]
      // Sends telemetry to the built-in endpoint, as without any route. If this is missing, telemetry is not sent there.
      fallbackRoute: {
        name: '$fallback'
        source: 'DeviceMessages'
        condition: 'true'
        endpointNames: [
          'events'
        ]
        isEnabled: true
      }
    }
  }
}

@description('Name of the hub.')
output hubName string = hub.name

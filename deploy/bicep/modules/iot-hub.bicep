// A new IoT hub that routes what happens to its twins. Not for a hub that is there already: deploying a hub replaces all of its
// properties, and this file knows none of those that somebody else has set.

@description('Region of the hub.')
param location string

@description('Name of the hub; a part of its host name.')
@minLength(3)
@maxLength(50)
param hubName string

@description('Tier. Basic has no twins.')
@allowed([
  'S1'
  'S2'
  'S3'
])
param skuName string

@description('Units of the tier.')
@minValue(1)
@maxValue(200)
param units int

@description('Resource id of the identity to route with. It needs the role Azure Event Hubs Data Sender before the hub is created.')
param routingIdentityId string

@description('Fully qualified name of the Event Hubs namespace.')
param namespaceHost string

@description('Name of the Event Hub.')
param eventHubName string

@description('Lowest version of TLS. Empty: what IoT Hub takes by itself.')
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
    // Shared access policies of the hub are off. Devices go on with keys or certificates of their own.
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
      // Without a filter: a condition on the body is not true of a change that removes the property, so it would lose deletions.
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
      // Telemetry goes where it would go without any route. Left out, it would be switched off.
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
